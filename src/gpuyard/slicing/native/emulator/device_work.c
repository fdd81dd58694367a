/* Processor sharing: what every lane on a card gets of it, up to a moment. Without turns, k busy lanes advance at 1/k each,
 * which is what a card's own scheduler does to processes over anything longer than its time slice. Clients of MPS run beside
 * each other, each at its rate, or at its part of the card where the rates are more than the card. */
#include "device_local.h"
#include <time.h>

static uint16_t busy[GY_EMULATOR_LANES]; /* filled with the lock held */

uint64_t gy_real_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t gy_now(void) { return gy_here->virtual_clock ? gy_here->virtual_ns : gy_real_ns(); }

gy_mark *gy_mark_of(const gy_lane *lane, uint64_t mark) {
    return &gy_here->rings[lane - gy_here->lanes].marks[mark % GY_EMULATOR_MARKS];
}

static uint32_t find_busy(uint32_t card) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        const gy_lane *lane = &gy_here->lanes[i];
        if (lane->process && lane->card == card && lane->end_ns > lane->done_ns) busy[count++] = (uint16_t)i;
    }
    gy_mig_rates(busy, count);
    return count;
}

/* Whether busy lanes take turns: instances of a card do not. */
static bool in_turns(const gy_card *card) { return gy_here->turn_ns && !card->mig_mode; }

/* How much longer than by itself a lane's work takes: `times` for every `in` of it. */
struct stretch { uint64_t times, in; };

static uint64_t stretched(uint64_t work, struct stretch by) {
    return (uint64_t)(((unsigned __int128)work * by.times + by.in - 1) / by.in);
}

/* A lane gets `step` device time from `from` on, `ahead` of it already given. */
static void give(gy_lane *lane, uint64_t step, uint64_t from, struct stretch by, uint64_t ahead) {
    uint64_t before = lane->done_ns;
    lane->done_ns += step;
    while (lane->head < lane->tail) {
        gy_mark *mark = gy_mark_of(lane, lane->head);
        if (mark->work_ns > lane->done_ns) break;
        uint64_t part = mark->work_ns > before ? stretched(mark->work_ns - before, by) : 0;
        mark->at_ns = from + (part > ahead ? part - ahead : 0);
        lane->head++;
    }
}

/* The sum of what the busy lanes may have, at least the whole card; `even` where each may have all of it. */
static uint64_t rates(uint32_t count, bool *even) {
    uint64_t sum = 0;
    *even = true;
    for (uint32_t i = 0; i < count; i++) {
        sum += gy_here->lanes[busy[i]].rate_ppm;
        *even = *even && gy_here->lanes[busy[i]].rate_ppm == 1000000;
    }
    return sum > 1000000 ? sum : 1000000;
}

static struct stretch stretch_of(const gy_lane *lane, uint32_t count) {
    bool even;
    uint64_t sum = rates(count, &even);
    return even ? (struct stretch){count, 1} : (struct stretch){sum, lane->rate_ppm};
}

static void share_by_rate(gy_card *card, uint32_t count, uint64_t now) {
    uint64_t left = now - card->advanced_ns;
    bool even = false;
    card->remainder_ns = 0;
    while (left && count && !even) {
        uint64_t cost = left, sum = rates(count, &even);
        for (uint32_t i = 0; i < count; i++) {
            const gy_lane *lane = &gy_here->lanes[busy[i]];
            uint64_t dry = stretched(lane->end_ns - lane->done_ns, (struct stretch){sum, lane->rate_ppm});
            if (dry < cost) cost = dry;
        }
        for (uint32_t i = 0; i < count; i++) {
            gy_lane *lane = &gy_here->lanes[busy[i]];
            unsigned __int128 due = (unsigned __int128)cost * lane->rate_ppm + lane->carry;
            uint64_t step = (uint64_t)(due / sum), rest = lane->end_ns - lane->done_ns;
            lane->carry = step < rest ? (uint64_t)(due % sum) : 0;
            give(lane, step < rest ? step : rest, now - left, (struct stretch){sum, lane->rate_ppm}, 0);
        }
        left -= cost;
        card->busy_ns += cost;
        count = find_busy((uint32_t)(card - gy_here->cards));
        rates(count, &even);
    }
    card->advanced_ns = now - left;
}

static void share_evenly(gy_card *card, uint32_t count, uint64_t now) {
    uint64_t left = now - card->advanced_ns;
    while (left && count) {
        uint64_t least = GY_FOREVER, ahead = card->remainder_ns % count, cost = left;
        for (uint32_t i = 0; i < count; i++) {
            const gy_lane *lane = &gy_here->lanes[busy[i]];
            if (lane->end_ns - lane->done_ns < least) least = lane->end_ns - lane->done_ns;
        }
        uint64_t step = (left + ahead) / count;
        card->remainder_ns = (left + ahead) % count;
        if (step >= least) {
            step = least;
            cost = least * count - ahead;
            card->remainder_ns = 0;
        }
        for (uint32_t i = 0; i < count; i++) give(&gy_here->lanes[busy[i]], step, now - left, (struct stretch){count, 1}, ahead);
        left -= cost;
        card->busy_ns += cost;
        count = find_busy((uint32_t)(card - gy_here->cards));
    }
    card->advanced_ns = now;
}

static gy_lane *whose_turn(gy_card *card, uint32_t count) {
    uint32_t next = busy[0];
    for (uint32_t i = 0; i < count; i++) {
        if (busy[i] == card->rotation && card->turn_left_ns) return &gy_here->lanes[busy[i]];
        if (busy[i] > card->rotation) {
            next = busy[i];
            break;
        }
    }
    card->rotation = next;
    card->turn_left_ns = gy_here->turn_ns;
    return &gy_here->lanes[next];
}

static uint64_t turn_length(const gy_card *card, const gy_lane *lane) {
    uint64_t rest = lane->end_ns - lane->done_ns;
    return rest < card->turn_left_ns ? rest : card->turn_left_ns;
}

static void take_turns(gy_card *card, uint32_t count, uint64_t now) {
    uint64_t left = now - card->advanced_ns;
    while (left && count) {
        gy_lane *lane = whose_turn(card, count);
        uint64_t step = turn_length(card, lane);
        if (step > left) step = left;
        give(lane, step, now - left, (struct stretch){1, 1}, 0);
        card->turn_left_ns -= step;
        card->busy_ns += step;
        left -= step;
        count = find_busy((uint32_t)(card - gy_here->cards));
    }
    card->advanced_ns = now;
}

/* Drivers sample over a sixth of a second up to a second. */
static void measure(gy_card *card, uint32_t number, uint64_t now) {
    uint64_t length = now - card->window_ns;
    if (length < 166666667u && card->window_ns) return;
    card->percent = card->window_ns ? (card->busy_ns - card->window_busy_ns) * 100 / length : 0;
    for (uint32_t i = 0; i < gy_here->lane_high; i++) {
        gy_lane *lane = &gy_here->lanes[i];
        if (!lane->process || lane->card != number) continue;
        lane->percent = card->window_ns ? (uint32_t)((lane->done_ns - lane->window_done_ns) * 100 / length) : 0;
        lane->window_done_ns = lane->done_ns;
    }
    card->window_ns = now;
    card->window_busy_ns = card->busy_ns;
}

void gy_advance(uint64_t now) {
    for (uint32_t i = 0; i < gy_here->card_count; i++) {
        gy_card *card = &gy_here->cards[i];
        if (now <= card->advanced_ns) continue;
        uint32_t count = find_busy(i);
        bool even = true;
        rates(count, &even);
        if (!even && !in_turns(card)) share_by_rate(card, count, now), count = find_busy(i);
        if (in_turns(card)) take_turns(card, count, now);
        else share_evenly(card, count, now);
        measure(card, i, now);
    }
}

uint64_t gy_submit(uint32_t card, uint64_t work_ns) {
    gy_lane *lane = gy_lane_on(card);
    uint64_t now = gy_now();
    gy_advance(now);
    bool idle = lane->end_ns == lane->done_ns;
    uint64_t number = lane->tail;
    lane->end_ns += work_ns;
    *gy_mark_of(lane, number) = (gy_mark){.work_ns = lane->end_ns, .at_ns = now};
    lane->tail++;
    if (idle && !work_ns) lane->head = lane->tail;
    return number;
}

bool gy_done(const gy_lane *lane, uint64_t mark) { return mark < lane->head; }

uint64_t gy_done_at(const gy_lane *lane, uint64_t mark) { return gy_mark_of(lane, mark)->at_ns; }

uint64_t gy_next_change(uint64_t now) {
    uint64_t earliest = GY_FOREVER;
    for (uint32_t c = 0; c < gy_here->card_count; c++) {
        gy_card *card = &gy_here->cards[c];
        uint32_t count = find_busy(c);
        if (count && in_turns(card)) {
            uint64_t at = now + turn_length(card, whose_turn(card, count));
            if (at < earliest) earliest = at;
        }
        for (uint32_t i = 0; !in_turns(card) && i < count; i++) {
            const gy_lane *lane = &gy_here->lanes[busy[i]];
            uint64_t at = now + stretched(lane->end_ns - lane->done_ns, stretch_of(lane, count)) - card->remainder_ns % count;
            if (at < earliest) earliest = at;
        }
    }
    return earliest;
}

uint64_t gy_done_earliest(const gy_lane *lane, uint64_t mark, uint64_t now) {
    gy_card *card = &gy_here->cards[lane->card];
    uint64_t work = gy_mark_of(lane, mark)->work_ns;
    uint64_t rest = work > lane->done_ns ? work - lane->done_ns : 0;
    if (gy_done(lane, mark)) return now;
    uint32_t count = find_busy(lane->card);
    if (!count) return now;
    if (!in_turns(card)) return now + stretched(rest, stretch_of(lane, count)) - card->remainder_ns % count;
    return whose_turn(card, count) == lane ? now + rest : GY_FOREVER;
}
