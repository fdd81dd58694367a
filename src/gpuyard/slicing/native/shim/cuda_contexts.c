/* Contexts take memory of their own. It is charged before one is made, and what a context held is given back with it. */
#include <pthread.h>

#include "cuda_shim.h"

static pthread_mutex_t primary_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned primary_users[GY_MAX_CARDS];
static CUcontext primary_of[GY_MAX_CARDS];

void gy_contexts_after_fork(void);
void gy_contexts_after_fork(void) {
    pthread_mutex_init(&primary_mutex, NULL);
    for (uint32_t card = 0; card < GY_MAX_CARDS; card++) primary_users[card] = 0;
}

void gy_context_gone(CUcontext context) {
    for (;;) {
        struct gy_block gone = {.card = -1};
        gy_blocks_lock();
        struct gy_block *b = gy_block_next(NULL);
        while (b != NULL && !((b->kind == GY_PLAIN || b->kind == GY_ARRAY) && b->owner == (uint64_t)context)) b = gy_block_next(b);
        if (b != NULL) {
            gone = *b;
            gy_block_remove(b);
        }
        gy_blocks_unlock();
        if (gone.card < 0) return;
        gy_release(gone.card, gone.bytes);
    }
}

static CUresult charge(CUdevice device, int *card) {
    *card = gy_card_of_device(device);
    if (*card < 0) {
        int count = 0;
        bool exists = REAL(cuDeviceGetCount)(&count) == OK && device >= 0 && device < count;
        return exists ? NOT_PERMITTED : OK; /* the driver says what is wrong with a device that does not exist */
    }
    return gy_reserve(*card, gy_slice.cards[*card].context_bytes) ? OK : OUT_OF_MEMORY;
}

static CUresult made(CUresult result, CUcontext *context, int card) {
    if (card < 0) return result;
    uint64_t bytes = gy_slice.cards[card].context_bytes;
    if (result != OK) {
        gy_release(card, bytes);
        return result;
    }
    gy_block_keep(&(struct gy_block){.key = (uint64_t)*context, .bytes = bytes, .card = (int16_t)card, .kind = GY_CONTEXT});
    return OK;
}

#define MAKE(call)                                    \
    ENTER();                                          \
    int card;                                         \
    CUresult result = charge(device, &card);          \
    if (result != OK) return result;                  \
    return made(call, context, card)

EXPORT CUresult cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device) { MAKE(REAL(cuCtxCreate)(context, flags, device)); }

EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    MAKE(REAL(cuCtxCreate_v2)(context, flags, device));
}

EXPORT CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int count, unsigned flags, CUdevice device) {
    MAKE(REAL(cuCtxCreate_v3)(context, affinity, count, flags, device));
}

EXPORT CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device) {
    MAKE(REAL(cuCtxCreate_v4)(context, params, flags, device));
}

EXPORT CUresult cuGLCtxCreate(CUcontext *context, unsigned flags, CUdevice device) {
    MAKE(REAL(cuGLCtxCreate)(context, flags, device));
}

EXPORT CUresult cuGLCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    MAKE(REAL(cuGLCtxCreate_v2)(context, flags, device));
}

static CUresult destroyed(CUresult result, CUcontext context) {
    struct gy_block block;
    if (result != OK) return result;
    gy_gate_forget();
    gy_context_gone(context);
    if (gy_block_take((uint64_t)context, GY_CONTEXT, &block)) gy_release(block.card, block.bytes);
    return OK;
}

EXPORT CUresult cuCtxDestroy(CUcontext context) {
    ENTER();
    return destroyed(REAL(cuCtxDestroy)(context), context);
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context) {
    ENTER();
    return destroyed(REAL(cuCtxDestroy_v2)(context), context);
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER();
    pthread_mutex_lock(&primary_mutex);
    int card = gy_card_of_device(device);
    CUresult result = card >= 0 && primary_users[card] ? OK : charge(device, &card);
    if (result == OK) {
        result = REAL(cuDevicePrimaryCtxRetain)(context, device);
        if (card >= 0 && result == OK) {
            primary_users[card]++;
            primary_of[card] = *context;
        } else if (card >= 0 && !primary_users[card]) {
            gy_release(card, gy_slice.cards[card].context_bytes);
        }
    }
    pthread_mutex_unlock(&primary_mutex);
    return result;
}

static CUresult primary_left(CUresult result, CUdevice device, bool reset) {
    int card = gy_card_of_device(device);
    if (result == OK && card >= 0 && primary_users[card]) {
        if (reset || --primary_users[card] == 0) {
            gy_gate_forget();
            gy_context_gone(primary_of[card]);
        }
        if (primary_users[card] == 0) gy_release(card, gy_slice.cards[card].context_bytes);
    }
    pthread_mutex_unlock(&primary_mutex);
    return result;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    ENTER();
    pthread_mutex_lock(&primary_mutex);
    return primary_left(REAL(cuDevicePrimaryCtxRelease)(device), device, false);
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER();
    pthread_mutex_lock(&primary_mutex);
    return primary_left(REAL(cuDevicePrimaryCtxRelease_v2)(device), device, false);
}

/* A reset takes what the context held; those who retained it still have it, and it stays charged. */
EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice device) {
    ENTER();
    pthread_mutex_lock(&primary_mutex);
    return primary_left(REAL(cuDevicePrimaryCtxReset)(device), device, true);
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    ENTER();
    pthread_mutex_lock(&primary_mutex);
    return primary_left(REAL(cuDevicePrimaryCtxReset_v2)(device), device, true);
}

/* The heap that kernels allocate from and the buffer that they print to are device memory of the context. */
EXPORT CUresult cuCtxSetLimit(int limit, size_t value) {
    ENTER();
    CUcontext context = NULL;
    int card = gy_card_now();
    if ((limit != LIMIT_MALLOC_HEAP && limit != LIMIT_PRINTF_FIFO) || card < 0 || REAL(cuCtxGetCurrent)(&context) != OK)
        return REAL(cuCtxSetLimit)(limit, value);
    uint64_t key = (uint64_t)context + (uint64_t)limit; /* contexts lie further apart than this */
    struct gy_block before;
    bool known = gy_block_take(key, GY_ARRAY, &before);
    uint64_t had = known ? before.bytes : 0;
    CUresult result = value > had && !gy_reserve(card, value - had) ? OUT_OF_MEMORY : OK;
    bool reserved = result == OK;
    if (reserved) result = REAL(cuCtxSetLimit)(limit, value);
    if (reserved && result != OK && value > had) gy_release(card, value - had);
    if (result == OK && value < had) gy_release(card, had - value);
    gy_block_keep(&(struct gy_block){.key = key, .bytes = result == OK ? value : had, .owner = (uint64_t)context, .card = (int16_t)card,
                                   .kind = GY_ARRAY});
    return result;
}
