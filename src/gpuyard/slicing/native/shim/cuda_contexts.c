/* Contexts take memory of their own. It is charged before one is made, and what a context held is given back with it. */
#include "cuda_shim.h"

static struct { unsigned users; CUcontext context; } primaries[GY_MAX_CARDS];

void gy_contexts_after_fork(void) {
    pthread_mutex_init(&gy_growing, NULL);
    memset(primaries, 0, sizeof primaries);
}

static bool belongs_to(const struct gy_block *b, CUcontext context) {
    return (b->kind == GY_PLAIN || b->kind == GY_ARRAY) && b->owner == (uint64_t)context;
}

static void context_gone(CUcontext context) {
    gy_gate_forget();
    for (;;) {
        gy_hold(&gy_blocks_busy);
        struct gy_block *b = gy_block_next(NULL), gone = {.card = -1};
        while (b != NULL && !belongs_to(b, context)) b = gy_block_next(b);
        if (b != NULL) {
            gone = *b;
            gy_block_remove(b);
        }
        gy_let_go(&gy_blocks_busy);
        if (gone.card < 0) return;
        gy_release(gone.card, gone.bytes);
    }
}

static CUresult charge(CUdevice device, int *card) {
    int count = 0;
    *card = gy_card_of_device(device);
    if (*card >= 0) return gy_reserve(*card, gy_slice.cards[*card].context_bytes) ? OK : OUT_OF_MEMORY;
    bool exists = REAL(cuDeviceGetCount)(&count) == OK && device >= 0 && device < count;
    return exists ? NOT_PERMITTED : OK; /* the driver says what is wrong with a device that does not exist */
}

#define CONTEXT(name, per_thread, extra, parameters, ...)                                                                  \
    OURS(name) parameters {                                                                                                \
        int card;                                                                                                          \
        CUresult result = charge(device, &card);                                                                           \
        if (result != OK) return result;                                                                                   \
        result = REAL(name)(__VA_ARGS__);                                                                                  \
        struct gy_block block = {.key = result == OK ? (uint64_t)*context : 0, .kind = GY_CONTEXT, .card = (int16_t)card}; \
        if (card >= 0) block.bytes = gy_slice.cards[card].context_bytes;                                                   \
        return gy_granted(result, &block, NULL);                                                                           \
    }
GY_EACH_CONTEXT(CONTEXT)

#define DESTROY(name, per_thread, extra, parameters, ...)                                              \
    OURS(name) parameters {                                                                            \
        struct gy_block block;                                                                         \
        CUresult result = REAL(name)(__VA_ARGS__);                                                     \
        if (result != OK) return result;                                                               \
        context_gone(context);                                                                         \
        if (gy_block_take((uint64_t)context, GY_CONTEXT, &block)) gy_release(block.card, block.bytes); \
        return OK;                                                                                     \
    }
GY_EACH_DESTROY(DESTROY)

OURS(cuDevicePrimaryCtxRetain)(CUcontext *context, CUdevice device) {
    pthread_mutex_lock(&gy_growing);
    int card = gy_card_of_device(device);
    CUresult result = card >= 0 && primaries[card].users ? OK : charge(device, &card);
    if (result == OK) {
        result = REAL(cuDevicePrimaryCtxRetain)(context, device);
        if (card >= 0 && result == OK) {
            primaries[card].users++;
            primaries[card].context = *context;
        } else if (card >= 0 && !primaries[card].users) {
            gy_release(card, gy_slice.cards[card].context_bytes);
        }
    }
    pthread_mutex_unlock(&gy_growing);
    return result;
}

/* A reset takes what the context held; those who retained it still have it, and it stays charged. */
#define PRIMARY(name, per_thread, is_reset, parameters, ...)                                      \
    OURS(name) parameters {                                                                       \
        pthread_mutex_lock(&gy_growing);                                                          \
        CUresult result = REAL(name)(__VA_ARGS__);                                                \
        int card = gy_card_of_device(device);                                                     \
        if (result == OK && card >= 0 && primaries[card].users) {                                 \
            if (is_reset || --primaries[card].users == 0) context_gone(primaries[card].context);  \
            if (primaries[card].users == 0) gy_release(card, gy_slice.cards[card].context_bytes); \
        }                                                                                         \
        pthread_mutex_unlock(&gy_growing);                                                        \
        return result;                                                                            \
    }
GY_EACH_PRIMARY(PRIMARY)

/* The heap that kernels allocate from and the buffer that they print to are device memory of the context. */
OURS(cuCtxSetLimit)(int limit, size_t value) {
    CUcontext context = NULL;
    int card = gy_card_now();
    if ((limit != LIMIT_MALLOC_HEAP && limit != LIMIT_PRINTF_FIFO) || card < 0 || REAL(cuCtxGetCurrent)(&context) != OK)
        return REAL(cuCtxSetLimit)(limit, value);
    struct gy_block b = {.key = (uint64_t)context + (uint64_t)limit, /* contexts lie further apart than this */
                         .owner = (uint64_t)context, .card = (int16_t)card, .kind = GY_ARRAY};
    gy_block_take(b.key, GY_ARRAY, &b);
    uint64_t more = value > b.bytes ? value - b.bytes : 0, less = value < b.bytes ? b.bytes - value : 0;
    CUresult result = more && !gy_reserve(card, more) ? OUT_OF_MEMORY : OK;
    if (result == OK) {
        result = REAL(cuCtxSetLimit)(limit, value);
        gy_release(card, result == OK ? less : more);
        if (result == OK) b.bytes = value;
    }
    gy_block_keep(&b);
    return result;
}
