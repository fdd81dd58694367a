/* What the mix of typical requests says about each card state. */
#include "placing.h"

static int64_t most(int64_t free, int64_t each) { return each > 0 ? free / each : INT64_C(65535); }

static int64_t percent_up(int64_t part, int64_t total) { return total > 0 ? (part * 100 + total - 1) / total : 0; }

/* How many percent of a card of this size one slice needs, by its tighter dimension. */
static int64_t need(const want *w, int64_t room_total) {
    int64_t share = percent_up(w->share, GY_PPM), room = percent_up(w->room, room_total);
    return share > room ? share : room;
}

/* What random arrivals use of a rest of 0 to 100 percent before nothing fits it any more, in ppm of the card: the mean
 * over the typical requests that fit, each followed by what is used of the rest that it leaves. */
static int fill_table(fleet *f, int64_t room_total) {
    for (int i = 0; i < f->room_count; i++)
        if (f->rooms[i] == room_total) return i;
    if (f->room_count == GY_MOST_ROOMS) return 0;
    int at = f->room_count++;
    int64_t *filled = f->filled[at];
    f->rooms[at] = room_total;
    for (int rest = 0; rest <= 100; rest++) {
        int64_t sum = 0, weight = 0;
        for (int m = 0; m < f->typicals; m++) {
            int64_t needs = f->mix[m].want.count ? need(&f->mix[m].want, room_total) : 0;
            if (needs == 0 || needs > rest) continue;
            weight += f->mix[m].weight;
            sum += f->mix[m].weight * (needs * 10000 + filled[rest - needs]);
        }
        filled[rest] = weight ? sum / weight : 0;
    }
    return at;
}

/* Fills the columns of a state: copies and waste. */
void gy_measure(fleet *f, int32_t row) {
    const card_state *s = &f->states[row];
    uint16_t *copies = f->copies + (size_t)row * GY_MOST_TYPICAL;
    for (int m = 0; m < f->typicals; m++) {
        const want *w = &f->mix[m].want;
        int64_t fit = 0;
        if (w->count > 0 && (w->models >> s->model & 1) && (s->mode == 0 || w->mode == s->mode)) {
            int64_t by_share = most(s->share, w->share), by_room = most(s->room, w->room);
            fit = by_share < by_room ? by_share : by_room;
            if (w->count > 1 && fit > 1) fit = 1; /* slices of one request lie on different cards */
            if (w->mode == GY_EXCLUSIVE && fit > 0) fit = is_empty(s);
        }
        copies[m] = (uint16_t)(fit > 65535 ? 65535 : fit);
    }
    int64_t room = s->room_total > 0 ? s->room * GY_PPM / s->room_total : s->share;
    int64_t tighter = s->share < room ? s->share : room;
    f->waste[row] = (s->share + room) / 2 - f->filled[fill_table(f, s->room_total)][tighter / 10000];
}

/* numbers: a `typical` each, after one another. `cpu_per_card`: milli-cores that a card's worth of requests wants. */
GY_EXPORT void gy_mix(fleet *f, int32_t count, const int64_t *numbers, int64_t cpu_per_card) {
    f->typicals = count, f->total_weight = count ? 0 : 1, f->room_count = 0, f->cpu_per_card = cpu_per_card, f->epoch++;
    for (int32_t m = 0; m < count; m++) {
        memcpy(&f->mix[m], numbers + m * 8, sizeof(typical));
        f->total_weight += f->mix[m].weight;
        f->value[m] = f->mix[m].weight * f->mix[m].want.count * f->mix[m].want.share;
        f->several[m] = (int32_t)f->mix[m].want.count;
        f->cpu_inverse[m] = f->mix[m].want.cpu > 0 ? 1.0 / (double)f->mix[m].want.cpu : 0.0;
        f->memory_inverse[m] = f->mix[m].want.memory > 0 ? 1.0 / (double)f->mix[m].want.memory : 0.0;
    }
    for (int32_t row = 0; row < f->state_count; row++) gy_measure(f, row);
}

/* See `enum term`. */
GY_EXPORT void gy_weights(fleet *f, const int64_t *weights) {
    memcpy(f->weights, weights, sizeof f->weights);
    f->epoch++;
}

/* By model: how much dearer it is than the cheapest, in ppm. */
GY_EXPORT void gy_tiers(fleet *f, const int64_t *tiers) {
    memcpy(f->tier, tiers, sizeof f->tier);
    f->epoch++;
}

/* By model, in ppm of the largest here: power at work beyond idling, power idle, price. */
GY_EXPORT void gy_costs(fleet *f, const int64_t *working, const int64_t *idling, const int64_t *price) {
    memcpy(f->working, working, sizeof f->working);
    memcpy(f->idling, idling, sizeof f->idling);
    memcpy(f->price, price, sizeof f->price);
    f->epoch++;
}

/* The borders between the integer scores 0 to 100 of FGD, in weighted ppm. */
GY_EXPORT void gy_fgd_steps(fleet *f, const int64_t *steps) { memcpy(f->fgd_step, steps, sizeof f->fgd_step); }
