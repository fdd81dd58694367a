/* The way in: finds the driver, fills the table behind the trampolines, and answers cuGetProcAddress with our own functions
 * where we have one. Nothing happens before the first call, so a program that never uses CUDA is not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_shim.h"

int gy_answer = GY_UNASKED;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *why_refused;

#define NAME(name, denied) #name,
#define DENIED(name, denied) denied,
static const char *const names[] = {GY_EACH_NAME_CUDA(NAME)};
static const uint8_t denied[] = {GY_EACH_NAME_CUDA(DENIED)};

struct ours { int index; void *hook; };
const struct ours *gy_each_hook(unsigned long *count); /* cuda_hooks.c */

static int refuse(void) { return NOT_PERMITTED; }
static int lacking(void) { return NOT_SUPPORTED; }

/* Real address -> our function, for the answers of cuGetProcAddress. A power of two, at most half full. */
enum { SWAPS = 512 };
static struct { void *real, *hook; } swaps[SWAPS];

static size_t swap_at(const void *real) {
    size_t at = ((uintptr_t)real * 0x9E3779B97F4A7C15u >> 32) % SWAPS;
    while (swaps[at].real != NULL && swaps[at].real != real) at = (at + 1) % SWAPS;
    return at;
}

static void after_fork(void);

static const char *start(void) {
    const char *why = gy_slice_read();
    if (why != NULL) return why;
    void *driver = dlopen(gy_slice.real_cuda, RTLD_NOW | RTLD_LOCAL);
    if (driver == NULL) return "its driver library cannot be loaded";
    if (dlsym(driver, "gpuyardShim") != NULL) return "its driver library is the shim itself";
    if ((why = gy_ledger_open(true)) != NULL) return why;
    void *real[GY_NAMES];
    for (int i = 0; i < GY_NAMES; i++) {
        void *found = denied[i] ? (void *)refuse : dlsym(driver, names[i]);
        real[i] = found != NULL ? found : (void *)lacking;
    }
    unsigned long count;
    const struct ours *hooks = gy_each_hook(&count);
    for (size_t i = 0; i < count; i++) {
        void *found = real[hooks[i].index];
        if (found == (void *)lacking) continue;
        size_t at = swap_at(found);
        swaps[at].real = found;
        swaps[at].hook = hooks[i].hook;
    }
    memcpy(gy_real, real, sizeof real);
    if ((why = gy_gate_open(driver)) != NULL) return why;
    pthread_atfork(NULL, NULL, after_fork);
    return NULL;
}

static void start_once(void) {
    why_refused = start();
    if (why_refused != NULL)
        for (int i = 0; i < GY_NAMES; i++) gy_real[i] = (void *)refuse;
    __atomic_store_n(&gy_answer, why_refused == NULL ? OK : NOT_PERMITTED, __ATOMIC_RELEASE);
}

int gy_start(void) {
    pthread_once(&once, start_once);
    return gy_answer;
}

/* Called by the stubs that stand in the table until it is filled. */
__attribute__((visibility("hidden"))) void gy_fill(void) { gy_start(); }

void gy_ledger_after_fork(void);
void gy_contexts_after_fork(void);
void gy_pools_after_fork(void);

static void after_fork(void) {
    gy_blocks_after_fork();
    gy_gate_after_fork();
    gy_contexts_after_fork();
    gy_pools_after_fork();
    gy_ledger_after_fork();
}

EXPORT const char gpuyardShim[] = "gpuyard";

EXPORT CUresult cuInit(unsigned flags) {
    static int told;
    if (gy_start() == OK) return REAL(cuInit)(flags);
    if (!__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED)) {
        const char *path = getenv("GPUYARD_SLICE");
        fprintf(stderr, "gpuyard: CUDA is refused here: the slice file %s is not valid: %s.\n", path ? path : "--", why_refused);
    }
    return NOT_PERMITTED;
}

static bool is_known(const char *symbol) {
    size_t length = strlen(symbol);
    int low = 0, high = GY_NAMES - 1;
    while (low <= high) { /* the list is sorted: the name itself, or a version of it, follows */
        int middle = (low + high) / 2;
        int order = strcmp(names[middle], symbol);
        if (order == 0) return true;
        if (order < 0) low = middle + 1;
        else high = middle - 1;
    }
    return low < GY_NAMES && strncmp(names[low], symbol, length) == 0 && names[low][length] == '_';
}

static bool is_family(const char *name, const char *symbol) {
    size_t length = strlen(symbol);
    return strncmp(name, symbol, length) == 0 && (name[length] == 0 || name[length] == '_');
}

/* Whether some version of this function must not be reached as the driver has it. */
static bool is_guarded(const char *symbol) {
    unsigned long count;
    const struct ours *hooks = gy_each_hook(&count);
    for (size_t i = 0; i < count; i++)
        if (is_family(names[hooks[i].index], symbol)) return true;
    for (int i = 0; i < GY_NAMES; i++)
        if (denied[i] && is_family(names[i], symbol)) return true;
    return false;
}

/* The driver chose the version; we only put our function in the place of its. An address that is none of those we know,
 * of a function that has to be ours, is not given out. */
static CUresult ours_instead(const char *symbol, void **function) {
    if (function == NULL || *function == NULL) return OK;
    size_t at = swap_at(*function);
    if (swaps[at].real != NULL) {
        *function = swaps[at].hook;
        return OK;
    }
    if ((gy_slice.strict && !is_known(symbol)) || is_guarded(symbol)) {
        *function = NULL;
        return NOT_FOUND;
    }
    return OK;
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    ENTER();
    CUresult result = REAL(cuGetProcAddress)(symbol, function, version, flags);
    return result == OK && symbol != NULL ? ours_instead(symbol, function) : result;
}

enum { SYMBOL_NOT_FOUND = 1 };

static CUresult get_v2(CUresult (*real)(const char *, void **, int, uint64_t, int *), const char *symbol, void **function, int version,
                       uint64_t flags, int *status) {
    CUresult result = real(symbol, function, version, flags, status);
    if (result != OK || symbol == NULL) return result;
    result = ours_instead(symbol, function);
    if (result != OK && status != NULL) *status = SYMBOL_NOT_FOUND;
    return result;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    ENTER();
    return get_v2(REAL(cuGetProcAddress_v2), symbol, function, version, flags, status);
}

EXPORT CUresult cuGetProcAddress_v2_ptsz(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    ENTER();
    return get_v2(REAL(cuGetProcAddress_v2_ptsz), symbol, function, version, flags, status);
}
