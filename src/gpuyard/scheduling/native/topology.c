/* How near the cards of a request are to each other. A collective is as fast as its slowest link, so the farthest pair
 * counts fifteen sixteenths and the mean of all pairs the rest. */
#include "placing.h"

static const int64_t *table_of(const fleet *f, int32_t node) {
    return f->distance + (size_t)f->links[node] * (size_t)f->width * (size_t)f->width;
}

/* In ppm of the usual farthest; 0 for a single card and where the links are not known. */
int64_t gy_farness(const fleet *f, int32_t node, const int32_t *chosen, int64_t count) {
    if (count < 2 || f->links[node] < 0) return 0;
    const int64_t *distance = table_of(f, node);
    int64_t farthest = 0, sum = 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < i; j++) {
            int64_t step = distance[chosen[i] * f->width + chosen[j]];
            sum += step;
            if (step > farthest) farthest = step;
        }
    return (15 * farthest + sum / (count * (count - 1) / 2)) / 16;
}

static int nearer(const fleet *f, const int32_t *cards, const int64_t *worst, const int64_t *sum, int32_t a, int32_t b) {
    if (worst[a] != worst[b]) return worst[a] < worst[b];
    if (sum[a] != sum[b]) return sum[a] < sum[b];
    return f->states[cards[a]].share < f->states[cards[b]].share;
}

/* The set that grows from one card by the nearest that the request fits: the one whose farthest pair is nearest, then whose sum is,
 * then with least left, then the first. Its cards in ascending order; 0 where there are too few. Where distances are nested, as
 * below PCIe switches and sockets, no set has a nearer farthest pair than the best of these. */
int gy_grow(fleet *f, wanted *w, int32_t node, int32_t first, int32_t *chosen) {
    const int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    const int64_t *distance = table_of(f, node);
    int64_t worst[GY_MOST_CARDS] = {0}, sum[GY_MOST_CARDS] = {0};
    int32_t count = f->cards[node], last = first;
    char able[GY_MOST_CARDS] = {0}, taken[GY_MOST_CARDS] = {0};
    for (int32_t c = 0; c < count; c++) able[c] = gy_after(f, w, cards[c]) != NO_STATE;
    if (!able[first]) return 0;
    taken[first] = 1;
    for (int64_t have = 1; have < w->want.count; have++) {
        int32_t best = -1;
        for (int32_t c = 0; c < count; c++) {
            if (!able[c] || taken[c]) continue;
            int64_t step = distance[last * f->width + c];
            sum[c] += step;
            if (step > worst[c]) worst[c] = step;
            if (best < 0 || nearer(f, cards, worst, sum, c, best)) best = c;
        }
        if (best < 0) return 0;
        taken[best] = 1, last = best;
    }
    for (int32_t c = 0, at = 0; c < count; c++)
        if (taken[c]) chosen[at++] = c;
    return 1;
}

/* A new table of links, [width * width]; its number. */
GY_EXPORT int32_t gy_links(fleet *f, const int64_t *distances) {
    size_t size = (size_t)f->width * (size_t)f->width;
    f->distance = realloc(f->distance, sizeof(int64_t) * size * (size_t)(f->link_tables + 1));
    memcpy(f->distance + size * (size_t)f->link_tables, distances, sizeof(int64_t) * size);
    return f->link_tables++;
}

/* Which table of links a node has. */
GY_EXPORT void gy_linked(fleet *f, int32_t node, int32_t table) {
    f->links[node] = table;
    gy_touch(f, node);
}
