/* Opening the machine's file, and the lock on it. */
#include "device.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "device_local.h"

gy_machine *gy_here;
int gy_file = -1;

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static gy_machine *refuse(const char *path, const char *why) {
    fprintf(stderr, "gpuyard emulator: %s: %s\n", path, why);
    return NULL;
}

static void prepare_mutex(gy_machine *machine, int file) {
    /* Python creates the file and has no pthread mutexes; the first process here makes it one. */
    flock(file, LOCK_EX);
    if (!machine->mutex_ready) {
        pthread_mutexattr_t kind;
        pthread_mutexattr_init(&kind);
        pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init((pthread_mutex_t *)machine->mutex, &kind);
        pthread_mutexattr_destroy(&kind);
        __atomic_store_n(&machine->mutex_ready, 1, __ATOMIC_RELEASE);
    }
    flock(file, LOCK_UN);
}

static gy_machine *map(const char *path, int file) {
    struct stat seen;
    if (fstat(file, &seen) || (uint64_t)seen.st_size < sizeof(gy_machine)) return refuse(path, "not an emulated machine");
    gy_machine *machine = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (machine == MAP_FAILED) return refuse(path, strerror(errno));
    if (machine->magic != GY_EMULATOR_MAGIC || machine->version != GY_LAYOUT_VERSION || machine->size != sizeof *machine) {
        munmap(machine, sizeof *machine);
        return refuse(path, "an emulated machine of another version");
    }
    madvise(machine, sizeof *machine, MADV_DONTDUMP);
    return machine;
}

static void after_fork(void) {
    /* A child has no driver, as with the real one, until it executes another program. */
    if (gy_file >= 0) close(gy_file);
    gy_file = -1;
    if (gy_here) munmap(gy_here, sizeof *gy_here);
    gy_here = NULL;
    gy_forget_slots();
}

gy_machine *gy_open(void) {
    if (gy_here) return gy_here;
    pthread_mutex_lock(&opening);
    const char *path = getenv("GPUYARD_EMULATOR");
    if (!gy_here && path && *path) {
        int file = open(path, O_RDWR | O_CLOEXEC);
        gy_machine *machine = file < 0 ? refuse(path, strerror(errno)) : map(path, file);
        if (machine) {
            static bool watched;
            prepare_mutex(machine, file);
            if (!watched) pthread_atfork(NULL, NULL, after_fork);
            watched = true;
            gy_file = file;
            gy_here = machine;
        } else if (file >= 0) {
            close(file);
        }
    }
    pthread_mutex_unlock(&opening);
    return gy_here;
}

static bool is_stopped(uint32_t pid) {
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && state[1] && (state[2] == 'T' || state[2] == 't');
}

/* The thread with the lock, by the lock itself: a note beside it would be late or early by an instruction, and a thread
 * that is stopped just there would be nobody. The word is the kernel's as much as the C library's (robust futexes). */
static uint32_t holder_of(const pthread_mutex_t *mutex) {
    return (uint32_t)__atomic_load_n(&mutex->__data.__lock, __ATOMIC_RELAXED) & FUTEX_TID_MASK;
}

/* A real driver cannot be stopped half-way through a call. Whoever is, with the lock, goes on to the end of it. */
static int wait_for_lock(pthread_mutex_t *mutex) {
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50000000;
        if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
        int result = pthread_mutex_timedlock(mutex, &until);
        if (result != ETIMEDOUT) return result;
        uint32_t holder = holder_of(mutex);
        if (!holder || !is_stopped(holder)) continue;
        gy_here->stuck = holder;
        kill((pid_t)holder, SIGCONT);
    }
}

void gy_lock(void) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)gy_here->mutex;
    int result = pthread_mutex_trylock(mutex);
    if (result == EBUSY) result = wait_for_lock(mutex);
    if (result != EOWNERDEAD) return;
    gy_repair();
    pthread_mutex_consistent(mutex);
}

void gy_unlock(void) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)gy_here->mutex;
    bool stop = gy_here->stuck && gy_here->stuck == holder_of(mutex);
    if (stop) gy_here->stuck = 0;
    pthread_mutex_unlock(mutex);
    if (stop) raise(SIGSTOP);
}

__attribute__((destructor)) static void at_exit(void) {
    if (!gy_here) return;
    gy_lock();
    gy_leave_process();
    gy_unlock();
}
