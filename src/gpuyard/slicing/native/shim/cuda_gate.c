/* The gate before launches, for slices with less than a whole card of compute. Launches pass in batches of a few milliseconds
 * of device time; two batches may be in flight, each between two events whose distance the device itself measures. While the
 * device runs dry between launches every batch is a single launch, so that pauses are not taken for work. */
#include "cuda_shim.h"

enum { STREAMS = 8, RING = 64, MOST_LAUNCHES = 128, BATCH_NS = 3000000, POLL_NS = 50000, LONGEST_POLL_NS = 500000, BUSY_NS = 20000000 };

struct lane { CUstream stream; bool per_thread; CUevent start, end; };
struct batch {
    CUcontext context; /* whose events these are */
    int card, lanes;
    unsigned launches;
    bool dry;         /* the device had nothing to do when it was asked for */
    bool first;       /* nothing of this process was in flight when it began, be it that it had to wait */
    uint64_t began, waited, span; /* ns: its first event's moment; from there to the first and to the last launch's end */
    uint64_t since_virtual;
    struct lane lane[STREAMS];
};

bool gy_gated;
static struct gy_account accounts[GY_MAX_CARDS];
static struct batch ring[RING];
static unsigned first, next; /* ring[first..next) are in flight or, the last one, open */
static bool is_open, measuring_overlap, synchronized;
/* On a device that ran dry by itself, single launches are measured; the larger batches between them find out whether it
 * runs dry only because every launch is measured. Where the program waited for it, only now and then one is. */
static const uint8_t dry_batches[] = {1, 1, 1, 1, 2, 4, 8, 16, 16};
enum { SAMPLE_EVERY = 16 };
static unsigned dry_turn, fitting = 1;
static uint64_t single, each_lately; /* ns of device time of a launch by itself, and of any launch, lately */
static unsigned most = 1, most_open; /* launches of a batch; the room that the fast way was given */
static uint64_t charged_until, last_elapsed;
static int capturing;
char gy_gate_busy, gy_direct;
CUstream gy_open_stream[2] = {GY_NO_STREAM, GY_NO_STREAM};
unsigned gy_open_room;
static void sleep_really(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

static uint64_t (*now_ns)(void) = gy_monotonic_ns;
static void (*sleep_ns)(uint64_t) = sleep_really;

/* Launches of the open batch that took the fast way are counted when somebody comes the slow way. */
static void lock(void) {
    gy_hold(&gy_gate_busy);
    if (is_open) ring[(next - 1) % RING].launches += most_open - gy_open_room;
    most_open = gy_open_room;
}

static void unlock(void) {
    struct batch *b = &ring[(next - 1) % RING];
    bool may_go_on = is_open && b->lanes == 1 && !capturing && (uintptr_t)b->lane[0].stream > 2 && most > b->launches;
    gy_open_room = most_open = may_go_on ? most - b->launches : 0;
    gy_open_stream[0] = gy_open_stream[1] = GY_NO_STREAM;
    if (may_go_on) gy_open_stream[b->lane[0].per_thread] = b->lane[0].stream;
    gy_let_go(&gy_gate_busy);
}

const char *gy_gate_open(void *driver) {
    /* The emulator has a clock of its own; a driver has no such functions. */
    void *now = dlsym(driver, "gyEmulatorNowNs"), *sleep = dlsym(driver, "gyEmulatorSleepNs");
    if (now != NULL && sleep != NULL) *(void **)&now_ns = now, *(void **)&sleep_ns = sleep;
    for (uint32_t card = 0; card < gy_slice.card_count; card++) {
        if (gy_slice.cards[card].clock_path[0] == 0) continue;
        if (!gy_account_open(&accounts[card], &gy_slice.cards[card], now_ns())) return "its clock is missing or full";
        gy_gated = true;
    }
    gy_direct = !gy_gated;
    return NULL;
}

void gy_gate_after_fork(void) {
    gy_gate_forget();
    capturing = 0;
    gy_open_stream[0] = gy_open_stream[1] = GY_NO_STREAM;
    gy_let_go(&gy_gate_busy);
}

void gy_gate_forget(void) {
    for (int i = 0; i < RING; i++) ring[i].context = NULL;
    first = next;
    is_open = measuring_overlap = false;
}

static struct batch *at(unsigned index) { return &ring[index % RING]; }

static bool is_done(const struct batch *b) {
    for (int i = 0; i < b->lanes; i++)
        if (REAL(cuEventQuery)(b->lane[i].end) == NOT_READY) return false;
    return true;
}

static double milliseconds(CUevent from, CUevent to) {
    float value = 0;
    return REAL(cuEventElapsedTime)(&value, from, to) == OK ? value : 0;
}

/* How long the device worked on a batch, without what it shares with the batch before. */
static uint64_t elapsed_of(const struct batch *b, const struct batch *before) {
    double begin = 0, end = 0;
    for (int i = 0; i < b->lanes; i++) {
        double s = i ? milliseconds(b->lane[0].start, b->lane[i].start) : 0, e = milliseconds(b->lane[0].start, b->lane[i].end);
        if (s < begin) begin = s;
        if (e > end) end = e;
    }
    int lanes_before = before != NULL ? before->lanes : 0;
    for (int i = 0; i < lanes_before; i++) { /* where it ended after this one began, seen from this one's beginning */
        double overlap = -milliseconds(before->lane[i].end, b->lane[0].start);
        if (overlap > begin) begin = overlap;
    }
    uint64_t worked = end > begin ? (uint64_t)((end - begin) * 1e6) : 0;
    if (!b->dry) return worked;
    worked = worked > b->waited ? worked - b->waited : 0;
    if (b->launches == 1) single = single ? (3 * single + worked) / 4 : worked;
    /* The device can only have paused while launches were still being made: short beside the work, and there was no pause. */
    if (b->launches == 1 || single == 0 || 4 * b->span < worked) return worked;
    uint64_t least = worked > b->span ? worked - b->span : 0, guess = single * b->launches;
    guess = guess > least ? guess : least;
    return guess < worked ? guess : worked;
}

/* Charges all batches that are done. They are charged together, because nothing tells when each of them ended. */
static void harvest(uint64_t now) {
    static uint64_t run; /* device time since it last had nothing to do: at first without a pause, whoever else is busy */
    struct gy_work work = {0};
    unsigned closed = is_open ? next - 1 : next;
    int card = -1;
    while (first != closed && is_done(at(first))) {
        struct batch *b = at(first), *before = measuring_overlap && at(first - 1)->context == b->context ? at(first - 1) : NULL;
        uint64_t elapsed = elapsed_of(b, before);
        if (card < 0) work.since_virtual = b->since_virtual > charged_until ? b->since_virtual : charged_until;
        card = b->card;
        work.elapsed += elapsed;
        if (b->first) run = 0;
        uint64_t left = accounts[card].turn_ns > run ? accounts[card].turn_ns - run : 0;
        work.first_turn += elapsed < left ? elapsed : left;
        run += elapsed;
        last_elapsed = elapsed;
        uint64_t each = elapsed / b->launches;
        each_lately = each;
        uint64_t fit = each ? BATCH_NS / each : MOST_LAUNCHES;
        fitting = fit < 1 ? 1 : fit > MOST_LAUNCHES ? MOST_LAUNCHES : (unsigned)fit;
        measuring_overlap = true;
        first++;
    }
    if (card < 0) return;
    uint64_t cost = gy_account_charge(&accounts[card], now, work, first != next);
    uint64_t until = first == next ? now : now + BUSY_NS + 2 * last_elapsed;
    charged_until = gy_account_busy(&accounts[card], now, until);
    /* What is in flight began when the last of these ended, which was before they were looked at. */
    if (first != next && work.since_virtual + cost < charged_until) charged_until = work.since_virtual + cost;
}

static void record(CUevent event, const struct lane *lane) {
    REAL_FOR(cuEventRecord, lane->per_thread)(event, lane->stream);
}

static bool has_events(struct batch *b, CUcontext context) {
    if (b->context == context) return true;
    for (int i = 0; i < STREAMS && b->context != NULL; i++) {
        REAL(cuEventDestroy_v2)(b->lane[i].start);
        REAL(cuEventDestroy_v2)(b->lane[i].end);
    }
    b->context = NULL;
    for (int i = 0; i < STREAMS; i++)
        if (REAL(cuEventCreate)(&b->lane[i].start, EVENT_DEFAULT) != OK || REAL(cuEventCreate)(&b->lane[i].end, EVENT_DEFAULT) != OK)
            return false;
    b->context = context;
    return true;
}

static void close_batch(void) {
    if (!is_open) return;
    struct batch *b = at(next - 1);
    is_open = false;
    if (b->dry) b->span = now_ns() - b->began;
    if (b->launches == 0) {
        next--;
        return;
    }
    for (int i = 0; i < b->lanes; i++) record(b->lane[i].end, &b->lane[i]);
}

/* Whether the device has enough to do: two batches, or as many small ones as take as long. A program that waits often makes
 * small ones, and with too few of them in flight its turn on a card that others share would end before its time is up. */
static bool is_full(void) {
    unsigned launches = 0, in_flight = next - first;
    if (in_flight < 2) return false;
    for (unsigned i = first; i != next; i++) launches += at(i)->launches;
    return in_flight >= RING - 2 || each_lately == 0 || launches * each_lately >= 2 * BATCH_NS;
}

/* Waits, with the lock held, until a batch may begin: others of this process wait behind it. */
static void wait_for_turn(int card) {
    for (;;) {
        uint64_t now = now_ns();
        harvest(now);
        bool full = is_full();
        /* A second batch is in flight behind the one that is waited for: being late by a part of it idles nothing. */
        uint64_t poll = last_elapsed / 8 > POLL_NS ? last_elapsed / 8 : POLL_NS;
        uint64_t wait = full ? (poll < LONGEST_POLL_NS ? poll : LONGEST_POLL_NS) : gy_account_wait(&accounts[card], now, first != next);
        if (wait == 0) return;
        if (full) gy_account_busy(&accounts[card], now, now + BUSY_NS + 2 * last_elapsed);
        else if (first != next && wait > POLL_NS) wait = POLL_NS;
        sleep_ns(wait);
    }
}

static bool add_lane(struct batch *b, CUstream stream, bool per_thread) {
    if (b->lanes == STREAMS) return false;
    struct lane *lane = &b->lane[b->lanes++];
    lane->stream = stream;
    lane->per_thread = per_thread;
    record(lane->start, lane);
    return true;
}

static bool begin(CUcontext context, CUstream stream, bool per_thread) {
    CUdevice device;
    int card = REAL(cuCtxGetDevice)(&device) == OK ? gy_card_of_device(device) : -1;
    if (card < 0 || accounts[card].clock == NULL) return false;
    harvest(now_ns());
    bool ran_dry = first == next;
    wait_for_turn(card);
    struct batch *b = at(next);
    if (!has_events(b, context)) return false;
    uint64_t now = now_ns();
    b->card = card;
    b->lanes = 0;
    b->launches = 0;
    b->since_virtual = gy_account_busy(&accounts[card], now, now + BUSY_NS + 2 * last_elapsed);
    if (!ran_dry) dry_turn = 0;
    most = fitting;
    if (ran_dry && !synchronized) most = dry_batches[dry_turn++ % sizeof dry_batches];
    else if (ran_dry && dry_turn++ % SAMPLE_EVERY == 0) most = 1;
    synchronized = false;
    next++;
    is_open = true;
    b->dry = ran_dry;
    b->first = first + 1 == next;
    bool added = add_lane(b, stream, per_thread);
    b->began = now_ns();
    b->waited = b->span = 0;
    return added;
}

bool gy_is_capturing(CUstream stream, bool per_thread) {
    int status = CAPTURE_NONE;
    return REAL_FOR(cuStreamIsCapturing, per_thread)(stream, &status) == OK && status != CAPTURE_NONE;
}

static bool pass(CUcontext context, CUstream stream, bool per_thread) {
    struct batch *b = at(next - 1);
    if (is_open && b->context == context) {
        for (int i = 0; i < b->lanes; i++)
            if (b->lane[i].stream == stream && b->lane[i].per_thread == per_thread) return true;
        if (add_lane(b, stream, per_thread)) return true;
    }
    close_batch();
    return begin(context, stream, per_thread);
}

/* True with the lock held, for `gy_gate_left` to give back; false where the launch is not to be counted. */
bool gy_gate_enter(CUstream stream, bool per_thread) {
    CUcontext context = NULL;
    lock();
    struct batch *b = at(next - 1);
    bool same = is_open && b->lane[0].stream == stream && b->lane[0].per_thread == per_thread && !capturing;
    if (same && (uintptr_t)stream > 2) return true; /* a stream belongs to one context; the default streams to each */
    REAL(cuCtxGetCurrent)(&context);
    if (same && b->context == context) return true;
    int mode = CAPTURE_RELAXED; /* our own calls must not invalidate a capture that is going on elsewhere */
    bool relaxed = capturing && REAL(cuThreadExchangeStreamCaptureMode)(&mode) == OK;
    bool counted = !(capturing && gy_is_capturing(stream, per_thread)) && pass(context, stream, per_thread);
    if (relaxed) REAL(cuThreadExchangeStreamCaptureMode)(&mode);
    if (!counted) unlock();
    return counted;
}

void gy_gate_left(void) {
    struct batch *b = at(next - 1);
    if (++b->launches == 1 && b->dry) b->waited = now_ns() - b->began;
    if (UNLIKELY(b->launches >= most || capturing)) close_batch();
    unlock();
}

void gy_gate_before_sync(void) {
    lock();
    if (!capturing) close_batch();
    unlock();
}

void gy_gate_after_sync(void) {
    lock();
    synchronized = true;
    if (!capturing) harvest(now_ns());
    unlock();
}

void gy_gate_capture(int change) {
    lock();
    close_batch();
    if (capturing + change >= 0) capturing += change;
    unlock();
}
