/* Memory pools and graphs: the driver takes memory in chunks and keeps it, so what is reserved counts, not what is in use.
 * A chunk is reserved in the ledger before the driver may take one, and what it did not take is given back at once. */
#include "cuda_shim.h"

enum { CHUNK = 32 << 20 }; /* the most by which a pool grows beyond what was asked for */

bool gy_pools_used;
pthread_mutex_t gy_growing = PTHREAD_MUTEX_INITIALIZER; /* one pool grows at a time, so that its growth is known */

static uint64_t attribute(CUhandle pool, int which) {
    uint64_t value = 0;
    return REAL(cuMemPoolGetAttribute)(pool, which, &value) == OK ? value : 0;
}

/* Sets what a pool is charged, and gives back or takes the difference: to `bytes`, and for growth to so many more than is
 * charged, where that is more. False where it cannot be taken. */
static bool recharge(CUhandle pool, int card, uint64_t bytes, uint64_t growth) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find((uint64_t)pool, GY_POOL);
    uint64_t before = known != NULL ? known->bytes : 0;
    if (growth && bytes < before) bytes = before;
    bytes = bytes > UINT64_MAX - growth ? UINT64_MAX : bytes + growth;
    bool granted = bytes <= before || gy_reserve(card, bytes - before);
    if (granted) {
        if (known != NULL) known->bytes = bytes;
        else gy_pools_used = gy_block_put(&(struct gy_block){.key = (uint64_t)pool, .bytes = bytes, .card = (int16_t)card, .kind = GY_POOL});
        if (bytes < before) gy_release(card, before - bytes);
    }
    gy_let_go(&gy_blocks_busy);
    return granted;
}

static void settle_locked(int card) {
    CUhandle pool;
    uint64_t now = 0;
    do {
        pool = NULL;
        gy_hold(&gy_blocks_busy);
        for (struct gy_block *b = gy_block_next(NULL); b != NULL && pool == NULL; b = gy_block_next(b))
            if (b->kind == GY_POOL && b->card == card && (now = attribute((CUhandle)b->key, POOL_RESERVED)) < b->bytes) pool = (CUhandle)b->key;
        gy_let_go(&gy_blocks_busy);
    } while (pool != NULL && recharge(pool, card, now, 0));
}

void gy_pools_settle(int card) {
    if (!gy_pools_used) return;
    pthread_mutex_lock(&gy_growing);
    settle_locked(card);
    pthread_mutex_unlock(&gy_growing);
}

void gy_pool_settle(uint64_t pool, int card) {
    pthread_mutex_lock(&gy_growing);
    gy_hold(&gy_blocks_busy);
    bool known = gy_block_find(pool, GY_POOL) != NULL; /* else it was destroyed meanwhile */
    gy_let_go(&gy_blocks_busy);
    if (known) recharge((CUhandle)pool, card, attribute((CUhandle)pool, POOL_RESERVED), 0);
    pthread_mutex_unlock(&gy_growing);
}

/* Runs an allocation that may make the pool grow: of a pool that was named, or of the device's current one. */
static CUresult allocate(CUdeviceptr *pointer, size_t bytes, CUhandle pool, int card, CUstream stream, bool named, bool per_thread) {
    pthread_mutex_lock(&gy_growing);
    uint64_t growth = gy_round_up(bytes, CHUNK);
    CUresult result = OUT_OF_MEMORY;
    bool granted = recharge(pool, card, attribute(pool, POOL_RESERVED), growth);
    if (!granted) {
        settle_locked(card);
        granted = recharge(pool, card, attribute(pool, POOL_RESERVED), growth);
    }
    if (granted) {
        result = named ? REAL_FOR(cuMemAllocFromPoolAsync, per_thread)(pointer, bytes, pool, stream)
                       : REAL_FOR(cuMemAllocAsync, per_thread)(pointer, bytes, stream);
        recharge(pool, card, attribute(pool, POOL_RESERVED), 0);
    }
    if (result == OK)
        gy_block_keep(&(struct gy_block){.key = *pointer, .bytes = bytes, .owner = (uint64_t)pool, .card = (int16_t)card, .kind = GY_POOLED});
    pthread_mutex_unlock(&gy_growing);
    return result;
}

/* The card that a pool lies on: noted when it was made, or it is the device's own. */
static int card_of_pool(CUhandle pool) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find((uint64_t)pool, GY_POOL);
    int card = known != NULL ? known->card : -1;
    gy_let_go(&gy_blocks_busy);
    if (card >= 0) return card;
    for (card = 0; card < (int)gy_slice.card_count; card++) {
        CUhandle own = NULL;
        CUdevice device = gy_device_of_card(card);
        if (device >= 0 && REAL(cuDeviceGetDefaultMemPool)(&own, device) == OK && own == pool) return card;
    }
    return -1;
}

/* What is captured becomes a node of a graph, and is charged with that. */
#define FROM_CURRENT(name, per_thread, extra, parameters, ...)                                             \
    OURS(name) parameters {                                                                                \
        CUdevice device;                                                                                   \
        CUhandle pool = NULL;                                                                              \
        if (gy_is_capturing(stream, per_thread) || REAL(cuCtxGetDevice)(&device) != OK ||                  \
            REAL(cuDeviceGetMemPool)(&pool, device) != OK)                                                 \
            return REAL(name)(__VA_ARGS__);                                                                \
        int card = gy_card_of_device(device);                                                              \
        return card < 0 ? NOT_PERMITTED : allocate(pointer, bytes, pool, card, stream, false, per_thread); \
    }
GY_EACH_FROM_CURRENT(FROM_CURRENT)

#define FROM_POOL(name, per_thread, extra, parameters, ...)                                            \
    OURS(name) parameters {                                                                            \
        int card = card_of_pool(pool);                                                                 \
        if (card < 0 || gy_is_capturing(stream, per_thread)) /* also host memory, or no pool at all */ \
            return REAL(name)(__VA_ARGS__);                                                            \
        return allocate(pointer, bytes, pool, card, stream, true, per_thread);                         \
    }
GY_EACH_FROM_POOL(FROM_POOL)

OURS(cuMemPoolCreate)(CUhandle *pool, const struct gy_pool_props *props) {
    bool is_ours = props != NULL && props->location.type == LOCATION_DEVICE;
    int card = is_ours ? gy_card_of_device(props->location.id) : -1;
    CUresult result = is_ours && card < 0 ? NOT_PERMITTED : REAL(cuMemPoolCreate)(pool, props);
    if (result == OK && is_ours) recharge(*pool, card, attribute(*pool, POOL_RESERVED), 0);
    return result;
}

/* Allocations of a pool outlive it: what they hold stays charged until the process ends. */
OURS(cuMemPoolDestroy)(CUhandle pool) {
    pthread_mutex_lock(&gy_growing);
    uint64_t still_used = attribute(pool, POOL_USED);
    CUresult result = REAL(cuMemPoolDestroy)(pool);
    struct gy_block block;
    if (result == OK && gy_block_take((uint64_t)pool, GY_POOL, &block) && block.bytes > still_used)
        gy_release(block.card, block.bytes - still_used);
    pthread_mutex_unlock(&gy_growing);
    return result;
}

OURS(cuMemPoolTrimTo)(CUhandle pool, size_t keep) {
    CUresult result = REAL(cuMemPoolTrimTo)(pool, keep);
    int card = card_of_pool(pool);
    if (card >= 0) gy_pools_settle(card);
    return result;
}

