/* The other policies to compare with. */
#include "placing.h"

/* The first `count` cards that the request fits, those with least left first where `order` is 1, with most left where it is -1. 0 where
 * there are too few. */
int gy_pick(fleet *f, wanted *w, int32_t node, int32_t *chosen, int order) {
    const int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    int32_t count = f->cards[node];
    int64_t need = w->want.count;
    for (int64_t i = 0; i < need; i++) {
        int32_t best = -1;
        for (int32_t c = 0; c < count; c++) {
            int taken = gy_after(f, w, cards[c]) == NO_STATE;
            for (int64_t j = 0; j < i && !taken; j++) taken = chosen[j] == c;
            if (taken) continue;
            if (best < 0) best = c;
            else if (order > 0 && f->states[cards[c]].share < f->states[cards[best]].share) best = c;
            else if (order < 0 && f->states[cards[c]].share > f->states[cards[best]].share) best = c;
            if (order == 0) break;
        }
        if (best < 0) return 0;
        chosen[i] = best;
    }
    return 1;
}

static int64_t idle_of(const fleet *f, int32_t node) {
    int64_t idle = 0;
    for (int32_t c = 0; c < f->cards[node]; c++) idle += f->states[f->card[(size_t)node * (size_t)f->width + (size_t)c]].share;
    return idle;
}

#define MAX_CPU 128000LL
#define MAX_SHARE 8000000LL

static int64_t cost_bestfit(const fleet *f, const wanted *w, int32_t node) {
    int64_t cpu = f->cpu[node] - w->want.cpu, gpu = idle_of(f, node) - w->want.count * w->want.share;
    int64_t d = MAX_CPU * (MAX_SHARE / 1000);
    return -floor_div(100 * d - 50 * (cpu * (MAX_SHARE / 1000) + gpu / 1000 * MAX_CPU), d);
}

static int64_t cost_dotprod(const fleet *f, const wanted *w, int32_t node) {
    int64_t cpu = f->cpu[node], gpu = idle_of(f, node) / 1000, g = w->want.count * w->want.share / 1000;
    /* 100 x (1 - (cpu x cpu' / C^2 + gpu x gpu' / G^2) / 2), over a common denominator; C = 16 G, so C^2 = 256 G^2 */
    int64_t top = 8000LL * 8000LL * 256LL * 2LL;
    return -floor_div(100 * (top - cpu * w->want.cpu - 256 * gpu * g), top);
}

static int64_t cost_packing(const fleet *f, const wanted *w, int32_t node, const int32_t *chosen) {
    const int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    int64_t free = 0, used_free = 0, ratio = 0;
    if (w->want.count == 0) return 0;
    for (int32_t c = 0; c < f->cards[node]; c++) free += is_empty(&f->states[cards[c]]);
    if (free == f->cards[node]) return -(33 - free > free ? 33 - free : free);
    for (int64_t i = 0; i < w->want.count; i++) {
        const card_state *s = &f->states[cards[chosen[i]]];
        used_free += is_empty(s);
        ratio += s->share / (GY_PPM / 100);
    }
    if (used_free > 0) return -(50 - used_free > 33 ? 50 - used_free : 33);
    return -(100 - ratio / 10 > 50 ? 100 - ratio / 10 : 50);
}

static int64_t cost_clustering(const fleet *f, const wanted *w, int32_t node) {
    if (w->want.count == 0) return 0;
    const int64_t *kinds = f->kinds + (size_t)node * GY_KINDS;
    int64_t different = 0;
    for (int k = 1; k < GY_KINDS; k++) different += kinds[k] > 0;
    int64_t base = kinds[w->kind] > 0 ? (different == 1 ? 75 : 50) : (different == 0 ? 25 : 0);
    int64_t part = different == 0 && base == 0 ? 0 : 25 * (8000 - idle_of(f, node) / 1000) / 8000;
    return -(base + part);
}

static int64_t cost_random(const fleet *f, int32_t node) {
    uint64_t x = (uint64_t)f->seed * 0x9e3779b97f4a7c15ULL + (uint64_t)f->decisions * 0xbf58476d1ce4e5b9ULL + (uint64_t)node;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return (int64_t)((x ^ (x >> 31)) >> 2);
}

/* HAMi's default: the node whose cards are used most, before the request; of its cards the one with most left. HAMi has no
 * rule for requests of CPU alone; they go by the same measure, which is the kindest to it (by CPU: 4 points less). */
static int64_t cost_binpack_spread(const fleet *f, int32_t node) {
    int64_t total = 0;
    for (int32_t c = 0; c < f->cards[node]; c++) total += f->states[f->card[(size_t)node * (size_t)f->width + (size_t)c]].share_total;
    return idle_of(f, node) * 1000 / (total > 0 ? total : 1);
}

/* The policies that others publish, as they define them. Two of them know CPU and cards only. */
int64_t gy_cost_peer(fleet *f, wanted *w, int32_t node, int32_t *chosen) {
    int order = f->policy == P_BINPACK_SPREAD ? -1 : f->policy == P_RANDOM ? 0 : 1;
    if (w->want.count && !gy_pick(f, w, node, chosen, order)) return GY_NEVER;
    switch (f->policy) {
    case P_BESTFIT: return cost_bestfit(f, w, node);
    case P_PACKING: return cost_packing(f, w, node, chosen);
    case P_CLUSTERING: return cost_clustering(f, w, node);
    case P_DOTPROD: return cost_dotprod(f, w, node);
    case P_RANDOM: return cost_random(f, node);
    default: return cost_binpack_spread(f, node);
    }
}
