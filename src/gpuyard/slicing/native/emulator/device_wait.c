/* Waiting. On the real clock a thread sleeps. On the virtual one, time jumps to the next thing that happens as soon as every
 * thread that takes part waits for something; whoever dies, or sleeps outside of the driver, is not waited for. */
#include "device_local.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 20000000u /* how often a waiting thread looks for the dead */
#define AWAY_NS 200000000u /* how long a thread may sleep outside before time passes without it */
#define NAP_NS 1000000u   /* others may make this one's turn come earlier */

static __thread uint32_t place; /* + 1 */
static __thread int place_owner;
static pthread_key_t leaving;
static pthread_once_t leaving_once = PTHREAD_ONCE_INIT;

static void leave(void *unused) {
    (void)unused;
    if (!gy_here || !place || place_owner != getpid()) return;
    gy_lock();
    memset(&gy_here->threads[place - 1], 0, sizeof(gy_thread));
    place = 0;
    gy_unlock();
}

static void make_key(void) { pthread_key_create(&leaving, leave); }

static void wake(gy_thread *thread) {
    thread->waits = GY_RUNS;
    thread->seen_ns = gy_real_ns();
    __atomic_add_fetch(&thread->wake, 1, __ATOMIC_RELEASE);
    if (place && thread == &gy_here->threads[place - 1]) return;
    syscall(SYS_futex, &thread->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void gy_drop_threads(int slot) {
    for (uint32_t i = 0; i < gy_here->thread_high; i++)
        if (gy_here->threads[i].process == (uint32_t)slot + 1) memset(&gy_here->threads[i], 0, sizeof(gy_thread));
}

void gy_take_part(void) {
    if (!gy_here->virtual_clock) return;
    if (place && place_owner == getpid()) {
        gy_thread *thread = &gy_here->threads[place - 1];
        thread->seen_ns = gy_real_ns();
        thread->away = 0;
        return;
    }
    pthread_once(&leaving_once, make_key);
    int slot = gy_process();
    for (uint32_t i = 0; slot >= 0 && i < GY_EMULATOR_THREADS; i++) {
        if (gy_here->threads[i].process) continue;
        gy_here->threads[i] = (gy_thread){.process = (uint32_t)slot + 1, .tid = (uint32_t)syscall(SYS_gettid)};
        gy_here->threads[i].seen_ns = gy_real_ns();
        if (gy_here->thread_high <= i) gy_here->thread_high = i + 1;
        place = i + 1;
        place_owner = getpid();
        pthread_setspecific(leaving, &place);
        return;
    }
}

static bool satisfied(const gy_thread *thread, uint64_t now) {
    if (thread->waits == GY_WAITS_MOMENT) return now >= thread->value;
    return gy_done(&gy_here->lanes[thread->lane], thread->value);
}

static void let_time_pass(void) {
    while (gy_here->arrived >= gy_here->expected) {
        uint64_t now = gy_here->virtual_ns, next = GY_FOREVER;
        bool somebody = false, woke = false;
        for (uint32_t i = 0; i < gy_here->thread_high; i++) {
            const gy_thread *thread = &gy_here->threads[i];
            if (!thread->process || thread->away) continue;
            if (!thread->waits) return;
            uint64_t at = thread->waits == GY_WAITS_MOMENT
                              ? thread->value
                              : gy_done_earliest(&gy_here->lanes[thread->lane], thread->value, now);
            if (at < next) next = at;
            somebody = true;
        }
        uint64_t change = gy_next_change(now);
        if (change < next) next = change;
        if (!somebody || next == GY_FOREVER) return;
        if (next > now) gy_here->virtual_ns = next;
        gy_advance(gy_here->virtual_ns);
        for (uint32_t i = 0; i < gy_here->thread_high; i++) {
            gy_thread *thread = &gy_here->threads[i];
            if (thread->process && thread->waits && satisfied(thread, gy_here->virtual_ns)) wake(thread), woke = true;
        }
        if (woke) return;
    }
}

/* Whether a thread sleeps in the kernel; a thread that cannot be seen from here is taken to run. */
static bool sleeps(const gy_thread *thread) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%u/task/%u/stat", gy_here->processes[thread->process - 1].pid, thread->tid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && (state[2] == 'S' || state[2] == 'T' || state[2] == 't');
}

static void look_around(void) {
    gy_reap();
    uint64_t now = gy_real_ns();
    for (uint32_t i = 0; i < gy_here->thread_high; i++) {
        gy_thread *thread = &gy_here->threads[i];
        if (thread->process && !thread->waits && !thread->away && now - thread->seen_ns > AWAY_NS)
            thread->away = sleeps(thread);
    }
}

static void wait_virtually(uint32_t kind, uint32_t lane, uint64_t value) {
    gy_take_part();
    if (!place) return;
    gy_thread *thread = &gy_here->threads[place - 1];
    thread->lane = lane;
    thread->value = value;
    thread->waits = kind;
    if (satisfied(thread, gy_here->virtual_ns)) thread->waits = GY_RUNS;
    while (thread->waits) {
        let_time_pass();
        if (!thread->waits) break;
        uint32_t seen = thread->wake;
        struct timespec look = {.tv_nsec = LOOK_NS};
        gy_unlock();
        long answer = syscall(SYS_futex, &thread->wake, FUTEX_WAIT, seen, &look, NULL, 0);
        gy_lock();
        if (answer && thread->waits) look_around();
    }
}

static void nap(uint64_t ns) {
    struct timespec length = {.tv_nsec = (long)(ns < NAP_NS ? ns : NAP_NS)};
    gy_unlock();
    if (ns < 50000u) sched_yield();
    else nanosleep(&length, NULL);
    gy_lock();
}

void gy_wait_until(uint64_t moment) {
    if (gy_here->virtual_clock) {
        wait_virtually(GY_WAITS_MOMENT, 0, moment);
        return;
    }
    for (uint64_t now = gy_real_ns(); now < moment; now = gy_real_ns()) nap(moment - now);
}

void gy_wait_mark(const gy_lane *lane, uint64_t mark) {
    if (gy_here->virtual_clock) {
        if (!gy_done(lane, mark)) wait_virtually(GY_WAITS_MARK, (uint32_t)(lane - gy_here->lanes), mark);
        return;
    }
    for (;;) {
        uint64_t now = gy_real_ns();
        gy_advance(now);
        if (gy_done(lane, mark)) return;
        uint64_t at = gy_done_earliest(lane, mark, now);
        nap(at == GY_FOREVER ? NAP_NS : at - now);
    }
}

void gy_step_out(void) {
    if (place) memset(&gy_here->threads[place - 1], 0, sizeof(gy_thread));
    place = 0;
}
