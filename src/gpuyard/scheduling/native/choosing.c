/* The decision: the cheapest node, with costs remembered per class of request and worked out anew only where something
 * changed since. */
#include "placing.h"

static void rescore(fleet *f, wanted *w, int32_t node) {
    int32_t chosen[GY_MOST_CARDS];
    w->cost[node] = gy_cost(f, w, node, chosen, NULL);
    w->stamp[node] = f->version[node];
}

static int alike(const fleet *f, int32_t a, int32_t b) {
    size_t width = (size_t)f->width;
    return f->looks[a] == f->looks[b] && f->cpu[a] == f->cpu[b] && f->memory[a] == f->memory[b] &&
           f->cpu_total[a] == f->cpu_total[b] && f->open[a] == f->open[b] && f->cards[a] == f->cards[b] && f->links[a] == f->links[b] &&
           memcmp(f->card + (size_t)a * width, f->card + (size_t)b * width, sizeof(int32_t) * width) == 0;
}

static int64_t order_of(const fleet *f, int32_t node) { return (int64_t)node * GY_PPM / f->nodes; }

/* A large fleet has far fewer states than nodes: what a node costs, its like costs too, but for its place in the order. */
static void rescore_all(fleet *f, wanted *w) {
    if (f->policy != P_GPUYARD) {
        for (int32_t n = 0; n < f->nodes; n++) rescore(f, w, n);
        return;
    }
    uint64_t mask = (uint64_t)f->alike_size - 1;
    for (int64_t i = 0; i < f->alike_size; i++) f->alike[i] = -1;
    for (int32_t n = 0; n < f->nodes; n++) {
        uint64_t at = f->looks[n] & mask;
        while (f->alike[at] >= 0 && !alike(f, f->alike[at], n)) at = (at + 1) & mask;
        int32_t like = f->alike[at];
        if (like < 0) {
            f->alike[at] = n;
            rescore(f, w, n);
            continue;
        }
        int64_t later = f->weights[T_ORDER] * (order_of(f, n) - order_of(f, like));
        w->cost[n] = w->cost[like] == GY_NEVER ? GY_NEVER : w->cost[like] + later;
        w->stamp[n] = f->version[n];
    }
}

static void refresh(fleet *f, wanted *w) {
    int all = w->epoch != f->epoch || f->log_to - w->seen > f->log_size || f->policy == P_RANDOM;
    if (!w->cost) {
        w->cost = malloc(sizeof(int64_t) * (size_t)f->nodes);
        w->stamp = malloc(sizeof(int32_t) * (size_t)f->nodes);
        all = 1;
    }
    if (all)
        rescore_all(f, w);
    else
        for (int64_t at = w->seen; at < f->log_to; at++) {
            int32_t node = f->log[at % f->log_size];
            if (w->stamp[node] != f->version[node]) rescore(f, w, node);
        }
    w->seen = f->log_to, w->epoch = f->epoch;
}

/* The node and its cards, or -1 where the request fits nowhere. `terms` may be NULL. */
GY_EXPORT int32_t gy_choose(fleet *f, int32_t class_, int32_t *chosen, int64_t *terms) {
    wanted *w = &f->classes[class_];
    f->decisions++;
    refresh(f, w);
    int32_t best = -1;
    int64_t least = GY_NEVER;
    for (int32_t n = 0; n < f->nodes; n++)
        if (w->cost[n] < least) least = w->cost[n], best = n;
    if (best >= 0) gy_cost(f, w, best, chosen, terms);
    return best;
}

/* Chooses and takes. */
GY_EXPORT int32_t gy_place(fleet *f, int32_t class_, int32_t *chosen) {
    int32_t node = gy_choose(f, class_, chosen, NULL);
    if (node >= 0) gy_take(f, class_, node, chosen);
    return node;
}

/* What one node would cost, now; GY_NEVER where the request does not fit it. */
GY_EXPORT int64_t gy_cost_at(fleet *f, int32_t class_, int32_t node, int32_t *chosen, int64_t *terms) {
    return gy_cost(f, &f->classes[class_], node, chosen, terms);
}
