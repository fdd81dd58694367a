/* A card's virtual clock. Work of k tenants shares the card, so each gets 1/k of it: the clock advances at that rate, and a
 * tenant is charged by it. Charged by the wall, a tenant would pay for its neighbours' work. */
#include "cuda_shim.h"

#define EACH_TENANT(t, clock) for (struct gy_clock_tenant *t = (clock)->tenants; t < (clock)->tenants + GY_CLOCK_TENANTS; t++)
enum { BURST_NS = 20 * 1000 * 1000, LONGEST_WAIT_NS = 5 * 1000 * 1000, NEAR_NS = 100 * 1000, HELD_NS = 20 * 1000 * 1000 };

/* The clock is shared with other slices: its lock is a word, for no pointer of theirs may be followed here. It holds until
 * when it is held, so that nobody stands still for a process that was stopped or killed with it; what that one still does to
 * the clock is wrong by no more than it was stopped over, and nobody pays more than the device worked. */
static uint64_t hold(struct gy_card_clock *clock) {
    uint64_t *word = (uint64_t *)clock->mutex, seen = 0;
    for (;;) {
        uint64_t now = gy_monotonic_ns(), mine = now + HELD_NS;
        bool free = seen < now || seen > now + 2 * HELD_NS; /* or it says what nobody may say */
        if (free && __atomic_compare_exchange_n(word, &seen, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return mine;
        if (!free) sched_yield(), seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    }
}

static void let_go(struct gy_card_clock *clock, uint64_t mine) {
    __atomic_compare_exchange_n((uint64_t *)clock->mutex, &mine, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Brings the clock to `now`, piece by piece: each tenant counts until the moment up to which it is busy. */
static void advance(struct gy_card_clock *clock, uint64_t now) {
    while (clock->advanced_ns < now) {
        uint64_t end = now, busy = 0;
        EACH_TENANT(t, clock) {
            if (!t->in_use || t->busy_until_ns <= clock->advanced_ns) continue;
            busy++;
            if (t->busy_until_ns < end) end = t->busy_until_ns;
        }
        clock->virtual_ns += (end - clock->advanced_ns) / (busy ? busy : 1);
        clock->advanced_ns = end;
    }
}

/* What was earned since the last look. It is held to a burst only once the work that it was earned under is paid for. */
static void refill(struct gy_account *account, uint64_t now, uint64_t cost, bool in_flight) {
    struct gy_clock_tenant *t = account->tenant;
    uint64_t passed = now > t->refilled_ns ? now - t->refilled_ns : 0;
    if (passed > 3600ull * 1000000000u) passed = 3600ull * 1000000000u; /* a suspended machine earns nothing more */
    t->tokens_ns += (int64_t)(passed * account->ppm / 1000000) - (int64_t)cost;
    if (t->tokens_ns > BURST_NS && !in_flight) t->tokens_ns = BURST_NS;
    t->refilled_ns = later(now, t->refilled_ns);
}

static bool others_are_idle(const struct gy_account *account, uint64_t now) {
    EACH_TENANT(t, account->clock)
        if (t != account->tenant && t->in_use && t->busy_until_ns > now) return false;
    return true;
}

/* Its place on the clock, which may be the first that is free; NULL where all are taken. */
static struct gy_clock_tenant *place(struct gy_card_clock *clock, const struct gy_slice_card *card, uint64_t now) {
    EACH_TENANT(t, clock)
        if (t->in_use && !strncmp(t->slice_id, gy_slice.slice_id, sizeof t->slice_id)) return t;
    EACH_TENANT(t, clock) {
        if (t->in_use) continue;
        *t = (struct gy_clock_tenant){.compute_ppm = card->compute_ppm, .refilled_ns = now};
        memcpy(t->slice_id, gy_slice.slice_id, sizeof t->slice_id);
        t->in_use = 1;
        return t;
    }
    return NULL;
}

bool gy_account_open(struct gy_account *account, const struct gy_slice_card *card, uint64_t now) {
    const char *why;
    struct gy_card_clock *clock = gy_map_shared(card->clock_path, sizeof *clock, GY_CLOCK_MAGIC, &why);
    if (clock == NULL) return false;
    uint64_t held = hold(clock);
    struct gy_clock_tenant *found = place(clock, card, now);
    if (clock->advanced_ns == 0 || clock->advanced_ns > now) clock->advanced_ns = now; /* new, or of an earlier boot */
    if (found != NULL && found->refilled_ns > now) found->refilled_ns = now;
    let_go(clock, held);
    *account = (struct gy_account){clock, found, card->compute_ppm, card->mode, card->turn_ns, card->multiprocessors != 0};
    return found != NULL;
}

uint64_t gy_account_busy(struct gy_account *account, uint64_t now, uint64_t until) {
    uint64_t held = hold(account->clock);
    advance(account->clock, now);
    account->tenant->busy_until_ns = until;
    uint64_t moment = account->clock->virtual_ns;
    let_go(account->clock, held);
    return moment;
}

/* What of the last `elapsed` ns others certainly had to themselves. */
static uint64_t had_by_others(const struct gy_account *account, uint64_t now, uint64_t elapsed) {
    uint64_t total = 0, begin = now > elapsed ? now - elapsed : 0;
    EACH_TENANT(t, account->clock) {
        if (t == account->tenant || !t->in_use) continue;
        uint64_t from = later(t->ran_from_ns, begin), until = t->ran_until_ns < now ? t->ran_until_ns : now;
        if (until > from) total += until - from;
    }
    return total < elapsed ? total : elapsed;
}

/* The clock counts everybody in flight alike. Where programs take turns that is right in the long run only: who begins on an
 * idle queue has the card to itself for a turn, and pays for that whole; who was interrupted by it does not. */
uint64_t gy_account_charge(struct gy_account *account, uint64_t now, struct gy_work work, bool in_flight) {
    uint64_t held = hold(account->clock);
    advance(account->clock, now);
    struct gy_clock_tenant *t = account->tenant;
    uint64_t moment = account->clock->virtual_ns, cost = moment > work.since_virtual ? moment - work.since_virtual : 0;
    uint64_t most = work.elapsed - (account->turn_ns ? had_by_others(account, now, work.elapsed) : 0);
    cost = later(cost, work.first_turn);
    cost = cost < most ? cost : most;
    if (work.first_turn == work.elapsed && most == work.elapsed) {
        uint64_t from = now - work.elapsed;
        if (from > t->ran_until_ns + NEAR_NS) t->ran_from_ns = from; /* else it goes on where it was seen last */
        t->ran_until_ns = now;
    }
    refill(account, now, cost, in_flight);
    t->charged_ns += cost;
    if (account->mode == GY_MODE_BORROW && t->tokens_ns < 0 && others_are_idle(account, now))
        t->tokens_ns = 0; /* what nobody else wanted was lent, and is not owed */
    let_go(account->clock, held);
    return cost;
}

/* Under MPS the programs of a slice would run beside each other, each on all of its multiprocessors. So only one of them has
 * work in flight, and after a while it hands over to one that waits, which then has a moment to come. */
static uint64_t wait_for_siblings(struct gy_clock_tenant *t, uint64_t now, bool in_flight) {
    uint32_t me = (uint32_t)getpid();
    bool mine = t->holder == me, wanted = t->wanted_by && t->wanted_by != me && now < t->wanted_ns + LONGEST_WAIT_NS;
    if (mine && (!wanted || now < t->held_from_ns + BURST_NS)) return 0;
    if (!mine && !wanted && t->busy_until_ns > now) t->wanted_by = me, t->wanted_ns = now;
    if (mine ? in_flight : t->busy_until_ns > now) return NEAR_NS;
    t->holder = mine ? t->wanted_by : me, t->held_from_ns = now;
    if (t->wanted_by == t->holder) t->wanted_by = 0;
    if (mine) t->busy_until_ns = now + LONGEST_WAIT_NS;
    return mine ? NEAR_NS : 0;
}

uint64_t gy_account_wait(struct gy_account *account, uint64_t now, bool in_flight) {
    uint64_t held = hold(account->clock), siblings = account->one_at_a_time ? wait_for_siblings(account->tenant, now, in_flight) : 0;
    refill(account, now, 0, in_flight);
    int64_t tokens = account->tenant->tokens_ns;
    bool lent = tokens <= 0 && account->mode == GY_MODE_BORROW && others_are_idle(account, now);
    let_go(account->clock, held);
    if (tokens > 0 || lent || siblings) return siblings;
    uint64_t wait = (uint64_t)(1 - tokens) * 1000000u / account->ppm;
    return wait < LONGEST_WAIT_NS ? (wait < 1000 ? 1000 : wait) : LONGEST_WAIT_NS;
}
