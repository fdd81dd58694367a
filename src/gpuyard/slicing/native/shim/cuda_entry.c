/* What is particular to CUDA's way in: cuGetProcAddress is answered with our own functions where we have one. */
#include "cuda_shim.h"

#define HOOK(name) {I_##name, (void *)name},
static const struct { int index; void *hook; } hooks[] = {GY_EACH_HOOK(HOOK)};
enum { HOOKS = sizeof hooks / sizeof hooks[0] };

/* Real address -> our function, for the answers of cuGetProcAddress. A power of two, at most half full. */
enum { SWAPS = 512 };
static struct { void *real, *hook; } swaps[SWAPS];

static size_t swap_at(const void *real) {
    size_t at = ((uintptr_t)real * 0x9E3779B97F4A7C15u >> 32) % SWAPS;
    while (swaps[at].real != NULL && swaps[at].real != real) at = (at + 1) % SWAPS;
    return at;
}

static void after_fork(void) {
    gy_blocks_after_fork();
    gy_gate_after_fork();
    gy_contexts_after_fork();
    gy_ledger_after_fork();
}

/* What pthread_atfork is made of, for glibc only: with a name that another C library lacks, its loader would end every program
 * that meets this library, and could not say why. There is no such library's driver: start() has refused by then. */
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *) __attribute__((weak));
extern void *__dso_handle;

static const char *open_cuda(void *driver) {
    for (size_t i = 0; i < HOOKS; i++) {
        void *found = gy_real[hooks[i].index];
        if (found == (void *)gy_lacking) continue;
        size_t at = swap_at(found);
        swaps[at].real = found;
        swaps[at].hook = hooks[i].hook;
    }
    const char *why = gy_gate_open(driver);
    if (why == NULL) __register_atfork(NULL, NULL, after_fork, &__dso_handle);
    return why;
}

const struct gy_library gy_library = {"CUDA", gy_slice.real_cuda, NOT_PERMITTED, NOT_SUPPORTED, true, open_cuda};

static bool is_family(const char *name, const char *symbol) {
    size_t length = strlen(symbol);
    return strncmp(name, symbol, length) == 0 && (name[length] == 0 || name[length] == '_');
}

/* Whether some version of this function must not be reached as the driver has it: it is ours, denied, or newer than this. */
static bool is_guarded(const char *symbol) {
    bool known = !gy_slice.strict;
    for (size_t i = 0; i < HOOKS; i++)
        if (is_family(gy_names[hooks[i].index], symbol)) return true;
    for (int i = 0; i < GY_NAMES; i++) {
        if ((known && !gy_denied[i]) || !is_family(gy_names[i], symbol)) continue;
        if (gy_denied[i]) return true;
        known = true;
    }
    return !known;
}

/* The driver chose the version; we only put our function in the place of its. An address that is none of those we know,
 * of a function that has to be ours, is not given out. */
static CUresult ours_instead(const char *symbol, void **function) {
    if (symbol == NULL || function == NULL || *function == NULL) return OK;
    size_t at = swap_at(*function);
    bool guarded = swaps[at].real == NULL && is_guarded(symbol);
    if (swaps[at].real != NULL || guarded) *function = swaps[at].hook;
    return guarded ? NOT_FOUND : OK;
}

OURS(cuGetProcAddress)(const char *symbol, void **function, int version, uint64_t flags) {
    CUresult result = REAL(cuGetProcAddress)(symbol, function, version, flags);
    return result == OK ? ours_instead(symbol, function) : result;
}

#define ADDRESS(name, per_thread, extra, parameters, ...)                        \
    OURS(name) parameters {                                                      \
        enum { SYMBOL_NOT_FOUND = 1 };                                           \
        CUresult result = REAL(name)(__VA_ARGS__);                               \
        if (result != OK || ours_instead(symbol, function) == OK) return result; \
        if (status != NULL) *status = SYMBOL_NOT_FOUND;                          \
        return NOT_FOUND;                                                        \
    }
GY_EACH_ADDRESS(ADDRESS)
