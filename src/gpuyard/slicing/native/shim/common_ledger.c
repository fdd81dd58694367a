/* The ledger: one file per slice, written under a robust mutex. Memory is reserved here before the driver is asked, so no
 * interleaving of processes holds more than the limit; what a dead process held comes back when it is next looked for. */
#include "shim.h"

enum { LOOK_NS = 100000000 };
enum { PATIENCE_NS = 2000000000 }; /* for a process of the same slice that was stopped with the ledger; then nothing is granted */

struct gy_ledger *gy_ledger;
static struct gy_ledger_slot *mine;
static uint64_t my_namespace;

_Static_assert(sizeof(pthread_mutex_t) <= 64, "a mutex fits its place in the shared files");

/* What the C library does with a mutex hangs on its kind, which lies in the file with it. */
static bool lock(bool patient) {
    enum { KIND_AT = 4, ROBUST = 16, SHARED = 128 };
    pthread_mutex_t *mutex = (pthread_mutex_t *)gy_ledger->mutex;
    if (UNLIKELY(((const int *)mutex)[KIND_AT] != (ROBUST | SHARED))) return false;
    int error = pthread_mutex_trylock(mutex);
    if (UNLIKELY(error == EBUSY && patient)) { /* held for microseconds, unless its holder was stopped */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE_NS / 1000000000;
        error = pthread_mutex_timedlock(mutex, &until);
    }
    if (UNLIKELY(error == EOWNERDEAD)) /* what it guards is right at every instruction: a slot holds or it does not */
        error = pthread_mutex_consistent(mutex);
    return error == 0;
}

static void unlock(void) { pthread_mutex_unlock((pthread_mutex_t *)gy_ledger->mutex); }

/* The file is made, sized and given its mutex by whoever makes the slice; here it is only taken as it should be. */
void *gy_map_shared(const char *path, size_t size, uint64_t magic, const char **why) {
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    struct gy_ledger *head = MAP_FAILED; /* all shared files begin alike */
    if (file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == (off_t)size)
        head = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    *why = head == MAP_FAILED ? "its shared file is missing or has the wrong size" : NULL;
    if (*why == NULL && (head->magic != magic || head->version != GY_LAYOUT_VERSION || head->size != size)) {
        munmap(head, size);
        *why = "its shared file is of another version";
    }
    return *why == NULL ? head : NULL;
}

static uint64_t start_time_of(uint32_t pid) {
    char path[32], text[1024] = {0};
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    char *at = count > 0 ? strrchr(text, ')') : NULL; /* the name before it may hold anything */
    if (at == NULL || at[1] == 0) return 0;
    bool is_dead = at[2] == 'Z' || at[2] == 'X'; /* a zombie holds no memory any more */
    for (int field = 2; field < 22 && at != NULL; field++) at = strchr(at + 1, ' ');
    return at == NULL || is_dead ? 0 : strtoull(at, NULL, 10);
}

/* The dead of other namespaces are not ours to judge: the yard sees all of them. */
static bool is_dead(const struct gy_ledger_slot *slot) {
    return slot->pid && slot != mine && slot->pid_namespace == my_namespace && start_time_of(slot->pid) != slot->start_time;
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
    uint64_t high = high_mark();
    for (struct gy_ledger_slot *slot = gy_ledger->slots; slot < gy_ledger->slots + high; slot++)
        if (is_dead(slot)) memset(slot, 0, sizeof *slot);
    while (high && gy_ledger->slots[high - 1].pid == 0) high--;
    gy_ledger->slots_high = high;
    gy_ledger->generation++;
}

static bool claim_slot(void) {
    uint32_t pid = (uint32_t)getpid();
    uint64_t started = start_time_of(pid);
    if (started == 0 || !lock(true)) return false;
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
    unlock();
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
    if (UNLIKELY(bytes > limit || mine == NULL || !lock(true))) return false;
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
    unlock();
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
    if (now - looked > LOOK_NS && lock(false)) {
        looked = now;
        reap();
        unlock();
    }
    return sum_of(card);
}

bool gy_was_exported(uint64_t hash, bool add) {
    if (!lock(true)) return false;
    bool found = false;
    for (uint32_t i = 0; i < GY_EXPORTS && !found; i++) found = gy_ledger->exports[i] == hash;
    if (add && !found) gy_ledger->exports[gy_ledger->exports_made++ % GY_EXPORTS] = hash;
    unlock();
    return found;
}

/* What a slice sees of its card: free memory is never more than total, and neither is below zero. */
void gy_mask(int card, size_t *total, size_t *free) {
    uint64_t limit = gy_slice.cards[card].memory_bytes, used = used_of(card);
    if (*total > limit) *total = limit;
    uint64_t left = used < *total ? *total - used : 0;
    if (*free > left) *free = left;
}
