/* FGD as its authors run it: the score is cut to an integer and the first of equals wins. Both carry the result. */
#include "placing.h"

/* The fragmentation measure of FGD (USENIX ATC'23): idle share that a random typical request could not use. */
static int64_t fragment(const fleet *f, const int32_t *cards, int32_t count, int64_t cpu, int64_t memory) {
    int64_t idle = 0, sum = 0;
    for (int32_t c = 0; c < count; c++) idle += f->states[cards[c]].share;
    for (int m = 0; m < f->typicals; m++) {
        const want *w = &f->mix[m].want;
        int64_t fitting = 0, used = 0;
        for (int32_t c = 0; c < count; c++)
            if (f->copies[(size_t)cards[c] * GY_MOST_TYPICAL + (size_t)m] > 0) {
                fitting++;
                used += f->states[cards[c]].share;
            }
        int runs = w->count > 0 && fitting >= w->count && cpu >= w->cpu && memory >= w->memory;
        sum += f->mix[m].weight * (runs ? idle - used : idle);
    }
    return sum;
}

static int64_t fgd_score(const fleet *f, int64_t gain) {
    int low = 0, high = 100; /* the largest score whose border is not above the gain */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (f->fgd_step[middle] <= gain) low = middle;
        else high = middle - 1;
    }
    return low;
}

int64_t gy_cost_fgd(fleet *f, wanted *w, int32_t node, int32_t *chosen) {
    int32_t *cards = f->card + (size_t)node * (size_t)f->width, after[GY_MOST_CARDS];
    int32_t count = f->cards[node];
    int64_t cpu = f->cpu[node], memory = f->memory[node];
    int64_t before = fragment(f, cards, count, cpu, memory);
    memcpy(after, cards, sizeof(int32_t) * (size_t)count);
    if (w->want.count == 1 && w->want.share < GY_PPM) {
        int64_t best = -1;
        for (int32_t c = 0; c < count; c++) {
            int32_t next = gy_after(f, w, cards[c]);
            if (next == NO_STATE) continue;
            after[c] = next;
            int64_t score = fgd_score(f, before - fragment(f, after, count, cpu - w->want.cpu, memory - w->want.memory));
            after[c] = cards[c];
            if (score > best) best = score, chosen[0] = c;
        }
        return best < 0 ? GY_NEVER : -best;
    }
    if (!gy_pick(f, w, node, chosen, 0)) return GY_NEVER;
    for (int64_t i = 0; i < w->want.count; i++) after[chosen[i]] = gy_after(f, w, cards[chosen[i]]);
    return -fgd_score(f, before - fragment(f, after, count, cpu - w->want.cpu, memory - w->want.memory));
}
