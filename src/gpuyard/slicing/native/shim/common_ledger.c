/* The ledger: one file per slice, written under a robust mutex. Memory is reserved here before the driver is asked, so no
 * interleaving of processes holds more than the limit; what a dead process held comes back when it is next looked for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

enum { LOOK_NS = 100000000, PATIENCE_NS = 2000000000 }; /* for a process of the same slice that was stopped with the ledger; then nothing is granted */

struct gy_ledger *gy_ledger;
static struct gy_ledger_slot *mine;
static uint64_t my_namespace;

_Static_assert(sizeof(pthread_mutex_t) <= 64, "a mutex fits its place in the shared files");

/* What the C library does with a mutex hangs on its kind, which lies in the file with it. */
static bool is_ours(const void *mutex) {
    enum { KIND_AT = 4, ROBUST = 16, SHARED = 128 };
    return ((const int *)mutex)[KIND_AT] == (ROBUST | SHARED);
}

static bool lock(void *mutex, uint64_t patience_ns) {
    if (UNLIKELY(!is_ours(mutex))) return false;
    int error = pthread_mutex_trylock(mutex);
    if (UNLIKELY(error == EBUSY && patience_ns)) { /* held for microseconds, unless its holder was stopped */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + patience_ns;
        until.tv_sec += (time_t)(ns / 1000000000u);
        until.tv_nsec = (long)(ns % 1000000000u);
        error = pthread_mutex_timedlock(mutex, &until);
    }
    if (UNLIKELY(error == EOWNERDEAD)) /* what it guards is right at every instruction: a slot holds or it does not */
        error = pthread_mutex_consistent(mutex);
    return error == 0;
}



/* The file is made, sized and given its mutex by whoever makes the slice; here it is only taken as it should be. */
void *gy_map_shared(const char *path, size_t size, uint64_t magic, const char **why) {
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    void *map = MAP_FAILED;
    if (file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == (off_t)size)
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (map == MAP_FAILED) {
        *why = "its shared file is missing or has the wrong size";
        return NULL;
    }
    const struct gy_ledger *head = map; /* all shared files begin alike */
    if (head->magic != magic || head->version != GY_LAYOUT_VERSION || head->size != size) {
        munmap(map, size);
        *why = "its shared file is of another version";
        return NULL;
    }
    return map;
}

static uint64_t start_time_of(uint32_t pid) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t count = read(file, text, sizeof text - 1);
    close(file);
    if (count <= 0) return 0;
    text[count] = 0;
    char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (at == NULL || at[1] == 0) return 0;
    char state = at[2];
    for (int field = 2; field < 22 && at != NULL; field++) at = strchr(at + 1, ' ');
    if (at == NULL || state == 'Z' || state == 'X') return 0; /* a zombie holds no memory any more */
    return strtoull(at, NULL, 10);
}

static bool is_alive(const struct gy_ledger_slot *slot) {
    if (slot->pid_namespace != my_namespace) return true; /* not ours to judge: the yard sees all namespaces */
    return start_time_of(slot->pid) == slot->start_time;
}

/* Tenants can write the file: nothing in it is believed further than its size. */
static uint64_t high_mark(void) {
    uint64_t high = gy_ledger->slots_high;
    return high < GY_LEDGER_SLOTS ? high : GY_LEDGER_SLOTS;
}

static uint64_t sum_of(int card) {
    uint64_t sum = 0;
    for (const struct gy_ledger_slot *slot = gy_ledger->slots, *end = slot + high_mark(); slot < end; slot++)
        if (__builtin_add_overflow(sum, __atomic_load_n(&slot->used[card], __ATOMIC_RELAXED), &sum)) return UINT64_MAX;
    return sum;
}

/* Frees the slots of the dead. A process that is gone took its contexts, and the driver its memory. */
static void reap(void) {
    for (uint64_t i = 0, high = high_mark(); i < high; i++) {
        struct gy_ledger_slot *slot = &gy_ledger->slots[i];
        if (slot->pid && slot != mine && !is_alive(slot)) memset(slot, 0, sizeof *slot);
    }
    uint64_t high = high_mark();
    while (high && gy_ledger->slots[high - 1].pid == 0) high--;
    gy_ledger->slots_high = high;
    gy_ledger->generation++;
}

static bool claim_slot(void) {
    uint32_t pid = (uint32_t)getpid();
    uint64_t started = start_time_of(pid);
    if (started == 0 || !lock(gy_ledger->mutex, PATIENCE_NS)) return false;
    reap();
    for (uint32_t i = 0; i < GY_LEDGER_SLOTS && mine == NULL; i++)
        if (gy_ledger->slots[i].pid == 0) mine = &gy_ledger->slots[i];
    if (mine != NULL) {
        memset(mine, 0, sizeof *mine);
        mine->start_time = started;
        mine->pid_namespace = my_namespace;
        mine->pid = pid;
        uint64_t high = (uint64_t)(mine - gy_ledger->slots) + 1;
        if (gy_ledger->slots_high < high) gy_ledger->slots_high = high;
    }
    pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex);
    return mine != NULL;
}

const char *gy_ledger_open(bool write) {
    struct stat status;
    const char *why = NULL;
    if (stat("/proc/self/ns/pid", &status) != 0) return "/proc is not mounted";
    my_namespace = status.st_ino;
    gy_ledger = gy_map_shared(gy_slice.ledger_path, sizeof *gy_ledger, GY_LEDGER_MAGIC, &why);
    if (gy_ledger != NULL && write && !claim_slot()) why = "its ledger has no place for one more process";
    return why;
}

/* A child of fork has no contexts and holds nothing: it starts with a slot of its own. */
void gy_ledger_after_fork(void) {
    mine = NULL;
    if (gy_ledger != NULL) claim_slot();
}

bool gy_reserve(int card, uint64_t bytes) {
    uint64_t limit = gy_slice.cards[card].memory_bytes;
    if (UNLIKELY(bytes > limit || mine == NULL || !lock(gy_ledger->mutex, PATIENCE_NS))) return false;
    uint64_t sum = sum_of(card);
    if (UNLIKELY(sum > limit - bytes)) {
        reap();
        sum = sum_of(card);
    }
    bool fits = sum <= limit - bytes;
    if (fits) {
        __atomic_add_fetch(&mine->used[card], bytes, __ATOMIC_RELAXED);
        if (sum + bytes > gy_ledger->peak[card]) gy_ledger->peak[card] = sum + bytes;
    } else {
        gy_ledger->refused[card]++;
    }
    pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex);
    return fits;
}

/* Needs no lock: only this process shrinks its slot, and whoever adds up meanwhile sees too much rather than too little. */
void gy_release(int card, uint64_t bytes) {
    if (mine != NULL) __atomic_sub_fetch(&mine->used[card], bytes, __ATOMIC_RELAXED);
}

/* Who asks how much is used sees what the dead held come back, at the latest a tenth of a second later. */
static uint64_t used_of(int card) {
    static uint64_t looked;
    uint64_t now = gy_monotonic_ns();
    if (now - looked > LOOK_NS && lock(gy_ledger->mutex, 0)) {
        looked = now;
        reap();
        pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex);
    }
    return sum_of(card);
}

void gy_exported(uint64_t hash) {
    if (gy_was_exported(hash) || !lock(gy_ledger->mutex, PATIENCE_NS)) return;
    gy_ledger->exports[gy_ledger->exports_made++ % GY_EXPORTS] = hash;
    pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex);
}

bool gy_was_exported(uint64_t hash) {
    if (!lock(gy_ledger->mutex, PATIENCE_NS)) return false;
    bool found = false;
    for (uint32_t i = 0; i < GY_EXPORTS && !found; i++) found = gy_ledger->exports[i] == hash;
    pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex);
    return found;
}

/* What a slice sees of its card: free memory is never more than total, and neither is below zero. */
void gy_mask(int card, size_t *total, size_t *free) {
    uint64_t limit = gy_slice.cards[card].memory_bytes, used = used_of(card);
    if (*total > limit) *total = limit;
    uint64_t left = used < *total ? *total - used : 0;
    if (*free > left) *free = left;
}
