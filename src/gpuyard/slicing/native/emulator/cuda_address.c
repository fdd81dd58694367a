/* cuGetProcAddress: a name, the API version of the caller, and which stream it means by 0, make a symbol. */
#include "cuda_state.h"
#include "cuda_variants.h"
#include <dlfcn.h>
#include <string.h>

enum { FOUND = 0, NO_SYMBOL = 1, TOO_OLD = 2 };
enum { LEGACY_STREAM = 1, PER_THREAD_STREAM = 2 };

/* What follows a name in a symbol of it: nothing, a version, and the mark of the per-thread-stream variants. */
static bool variant_of(const char *symbol, const char *name, size_t length, bool *per_thread) {
    if (strncmp(symbol, name, length)) return false;
    const char *rest = symbol + length;
    if (rest[0] == '_' && rest[1] == 'v' && rest[2] >= '0' && rest[2] <= '9') rest += 2 + strspn(rest + 2, "0123456789");
    *per_thread = !strcmp(rest, "_ptsz") || !strcmp(rest, "_ptds");
    return !*rest || *per_thread;
}

static void *address_of(const char *symbol) {
    static void *self;
    Dl_info here;
    if (!self && dladdr((void *)gy_variants, &here)) self = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    return self ? dlsym(self, symbol) : NULL;
}

static const char *choose(const char *name, int version, bool want_per_thread, int *status) {
    const struct variant *best = NULL;
    bool best_per_thread = false;
    int driver = gy_here ? (int)gy_here->cuda_version : 13000;
    *status = NO_SYMBOL;
    for (size_t i = 0; i < gy_variant_count; i++) {
        const struct variant *each = &gy_variants[i];
        bool per_thread;
        if (!variant_of(each->symbol, name, strlen(name), &per_thread)) continue;
        if (each->version > driver || (per_thread && !want_per_thread)) continue;
        if (*status == NO_SYMBOL) *status = TOO_OLD;
        if (each->version > version) continue;
        if (best && (best_per_thread > per_thread || (best_per_thread == per_thread && best->version >= each->version))) continue;
        best = each;
        best_per_thread = per_thread;
        *status = FOUND;
    }
    return best ? best->symbol : NULL;
}

static CUresult look_up(const char *name, void **answer, int version, uint64_t flags, int *status) {
    int own;
    if (!name || !*name || !answer || flags > PER_THREAD_STREAM) return INVALID_VALUE;
    gy_open();
    const char *symbol = choose(name, version, flags == PER_THREAD_STREAM, status ? status : &own);
    *answer = symbol ? address_of(symbol) : NULL;
    return *answer ? CUDA_SUCCESS : NOT_FOUND;
}

GY_API CUresult cuGetProcAddress(const char *name, void **answer, int version, uint64_t flags) {
    return look_up(name, answer, version, flags, NULL);
}

GY_API CUresult cuGetProcAddress_v2(const char *name, void **answer, int version, uint64_t flags, int *status) {
    return look_up(name, answer, version, flags, status);
}

/* The same, for a program built so that stream 0 is its thread's own. */
GY_API CUresult cuGetProcAddress_v2_ptsz(const char *name, void **answer, int version, uint64_t flags, int *status) {
    return look_up(name, answer, version, flags == LEGACY_STREAM ? flags : PER_THREAD_STREAM, status);
}
