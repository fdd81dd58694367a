/* The policy `gpuyard`: what a placement takes from the requests that will come. */
#include "placing.h"

typedef struct {
    int32_t slots[GY_MOST_TYPICAL]; /* slices of each typical request that the node's cards hold */
    int64_t idle, waste;
    int32_t empty;
} tally;

static void start(const fleet *f, tally *t) {
    memset(t->slots, 0, sizeof(int32_t) * (size_t)f->typicals);
    t->idle = 0, t->waste = 0, t->empty = 0;
}

static void copy(const fleet *f, tally *to, const tally *from) {
    memcpy(to->slots, from->slots, sizeof(int32_t) * (size_t)f->typicals);
    to->idle = from->idle, to->waste = from->waste, to->empty = from->empty;
}

static void count_card(const fleet *f, int32_t row, int sign, tally *t) {
    const uint16_t *copies = f->copies + (size_t)row * GY_MOST_TYPICAL;
    t->idle += sign * f->states[row].share;
    t->waste += sign * f->waste[row];
    t->empty += sign * is_empty(&f->states[row]);
    for (int m = 0; m < f->typicals; m++) t->slots[m] += sign * copies[m];
}

/* free / each, by a multiplication that is then put right: divisions are what this kernel would spend its time on. */
static int64_t whole(double inverse, int64_t free, int64_t each) {
    int64_t q = (int64_t)((double)free * inverse);
    if ((q + 1) * each <= free) q++;
    else if (q * each > free) q--;
    return q;
}

/* How many of each typical request CPU and memory allow. */
static void limit(const fleet *f, int64_t cpu, int64_t memory, int32_t *most) {
    for (int m = 0; m < f->typicals; m++) {
        const want *w = &f->mix[m].want;
        int64_t by_cpu = w->cpu > 0 ? whole(f->cpu_inverse[m], cpu, w->cpu) : INT32_MAX;
        int64_t by_memory = w->memory > 0 ? whole(f->memory_inverse[m], memory, w->memory) : INT32_MAX;
        int64_t least = by_cpu < by_memory ? by_cpu : by_memory;
        most[m] = (int32_t)(least < INT32_MAX ? least : INT32_MAX);
    }
}

/* Share of the node's cards that copies of each typical request could use, times the request's weight. */
static int64_t usable(const fleet *f, const tally *t, const int32_t *most) {
    int64_t sum = 0;
    for (int m = 0; m < f->typicals; m++) {
        int32_t fit = t->slots[m];
        if (f->several[m] > 1) fit /= f->several[m];
        sum += f->value[m] * (fit < most[m] ? fit : most[m]);
    }
    return sum;
}

/* CPU beyond what the idle cards will want, in milli-cores. */
static int64_t excess(const fleet *f, int64_t cpu, int64_t idle) {
    int64_t over = cpu - floor_div(f->cpu_per_card * idle, GY_PPM);
    return over > 0 ? over : 0;
}

typedef struct {
    fleet *f;
    const wanted *w;
    int32_t node;
    tally now;
    int64_t usable_now;
    int32_t most_then[GY_MOST_TYPICAL];
} view;

/* Power that the request adds: that of its share of each card at work, and of all cards of a node that was off. */
static int64_t watts(const view *v, const int32_t *chosen, int untouched) {
    const fleet *f = v->f;
    const int32_t *cards = f->card + (size_t)v->node * (size_t)f->width;
    int64_t sum = 0;
    for (int64_t i = 0; i < v->w->want.count; i++) sum += v->w->want.share * f->working[f->states[cards[chosen[i]]].model] / GY_PPM;
    if (untouched)
        for (int32_t c = 0; c < f->cards[v->node]; c++) sum += f->idling[f->states[cards[c]].model];
    return sum;
}

/* What is paid for the request there: of each card the larger of the two shares. */
static int64_t price(const view *v, const int32_t *chosen) {
    const fleet *f = v->f;
    const want *w = &v->w->want;
    int64_t sum = 0;
    for (int64_t i = 0; i < w->count; i++) {
        const card_state *s = &f->states[f->card[(size_t)v->node * (size_t)f->width + (size_t)chosen[i]]];
        int64_t room = s->room_total > 0 ? w->room * GY_PPM / s->room_total : 0;
        sum += (room > w->share ? room : w->share) * f->price[s->model] / GY_PPM;
    }
    return sum;
}

/* The cost of leaving the node as `then` says, once the request is on the cards chosen. */
static int64_t weigh(const view *v, const tally *then, int64_t tier, const int32_t *chosen, int64_t *terms) {
    const fleet *f = v->f;
    const want *w = &v->w->want;
    int64_t cpu = f->cpu[v->node];
    int64_t usable_then = usable(f, then, v->most_then);
    int untouched = v->now.empty == f->cards[v->node] && (w->count > 0 || cpu == f->cpu_total[v->node]);
    int64_t more = excess(f, cpu - w->cpu, then->idle) - excess(f, cpu, v->now.idle);
    terms[T_LOST] = floor_div(v->usable_now - usable_then, f->total_weight) - w->count * w->share;
    terms[T_WASTE] = then->waste - v->now.waste;
    terms[T_STRANDED] = floor_div(more * GY_PPM, f->cpu_per_card);
    terms[T_OPENED] = untouched ? GY_PPM : 0;
    terms[T_ORDER] = (int64_t)v->node * GY_PPM / f->nodes;
    terms[T_TIER] = tier;
    terms[T_TOPOLOGY] = gy_farness(f, v->node, chosen, w->count);
    terms[T_WATTS] = watts(v, chosen, untouched);
    terms[T_PRICE] = price(v, chosen);
    int64_t cost = 0;
    for (int i = 0; i < GY_TERMS; i++) cost += f->weights[i] * terms[i];
    return cost;
}

static int64_t cost_one(view *v, wanted *w, int32_t *chosen, int64_t *terms) {
    fleet *f = v->f;
    int32_t *cards = f->card + (size_t)v->node * (size_t)f->width;
    int64_t best = GY_NEVER, these[GY_TERMS];
    for (int32_t c = 0; c < f->cards[v->node]; c++) {
        int32_t next = gy_after(f, w, cards[c]);
        int like_another = 0;
        for (int32_t b = 0; b < c && !like_another; b++) like_another = cards[b] == cards[c];
        if (next == NO_STATE || like_another) continue;
        tally then;
        copy(f, &then, &v->now);
        count_card(f, cards[c], -1, &then);
        count_card(f, next, 1, &then);
        int64_t cost = weigh(v, &then, f->tier[f->states[next].model], &c, these);
        if (cost >= best) continue;
        best = cost, chosen[0] = c;
        if (terms) memcpy(terms, these, sizeof these);
    }
    return best;
}

/* What the cards chosen would cost, all of them together. */
static int64_t cost_set(view *v, wanted *w, const int32_t *chosen, int64_t *terms) {
    fleet *f = v->f;
    const int32_t *cards = f->card + (size_t)v->node * (size_t)f->width;
    int64_t tier = 0;
    tally then;
    copy(f, &then, &v->now);
    for (int64_t i = 0; i < w->want.count; i++) {
        int32_t from = cards[chosen[i]], to = gy_after(f, w, from);
        count_card(f, from, -1, &then);
        count_card(f, to, 1, &then);
        if (f->tier[f->states[to].model] > tier) tier = f->tier[f->states[to].model];
    }
    return weigh(v, &then, tier, chosen, terms);
}

/* The cards with least left, or, where it is known how near cards are to each other and that counts, the cheapest of these and
 * the sets that grow from each card. */
static int64_t cost_several(view *v, wanted *w, int32_t *chosen, int64_t *terms) {
    fleet *f = v->f;
    int64_t these[GY_TERMS];
    int32_t set[GY_MOST_CARDS];
    if (w->want.count && !gy_pick(f, w, v->node, chosen, 1)) return GY_NEVER;
    int64_t best = cost_set(v, w, chosen, these);
    if (terms) memcpy(terms, these, sizeof these);
    if (w->want.count < 2 || f->links[v->node] < 0 || f->weights[T_TOPOLOGY] == 0) return best;
    for (int32_t c = 0; c < f->cards[v->node]; c++) {
        if (!gy_grow(f, w, v->node, c, set)) continue;
        int64_t cost = cost_set(v, w, set, these);
        if (cost >= best) continue;
        best = cost;
        memcpy(chosen, set, sizeof(int32_t) * (size_t)w->want.count);
        if (terms) memcpy(terms, these, sizeof these);
    }
    return best;
}

/* See `enum term`. GY_NEVER where the request does not fit the node. */
int64_t gy_cost(fleet *f, wanted *w, int32_t node, int32_t *chosen, int64_t *terms) {
    if (!f->open[node] || f->cpu[node] < w->want.cpu || f->memory[node] < w->want.memory) return GY_NEVER;
    if (w->want.count > f->cards[node]) return GY_NEVER;
    if (f->policy == P_FGD) return gy_cost_fgd(f, w, node, chosen);
    if (f->policy != P_GPUYARD) return gy_cost_peer(f, w, node, chosen);
    int32_t *cards = f->card + (size_t)node * (size_t)f->width;
    int64_t fitting = 0;
    for (int32_t c = 0; c < f->cards[node]; c++) fitting += gy_after(f, w, cards[c]) != NO_STATE;
    if (fitting < w->want.count) return GY_NEVER;
    view v;
    int32_t most_now[GY_MOST_TYPICAL];
    v.f = f, v.w = w, v.node = node;
    start(f, &v.now);
    for (int32_t c = 0; c < f->cards[node]; c++) count_card(f, cards[c], 1, &v.now);
    limit(f, f->cpu[node], f->memory[node], most_now);
    limit(f, f->cpu[node] - w->want.cpu, f->memory[node] - w->want.memory, v.most_then);
    v.usable_now = usable(f, &v.now, most_now);
    return w->want.count == 1 ? cost_one(&v, w, chosen, terms) : cost_several(&v, w, chosen, terms);
}
