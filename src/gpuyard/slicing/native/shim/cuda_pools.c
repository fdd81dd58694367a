/* Memory pools and graphs: the driver takes memory in chunks and keeps it, so what is reserved counts, not what is in use.
 * A chunk is reserved in the ledger before the driver may take one, and what it did not take is given back at once. */
#include <pthread.h>

#include "cuda_shim.h"

enum { CHUNK = 32 << 20 }; /* the most by which a pool grows beyond what was asked for */

bool gy_pools_used;
static pthread_mutex_t growing = PTHREAD_MUTEX_INITIALIZER; /* one pool grows at a time, so that its growth is known */

void gy_pools_after_fork(void);
void gy_pools_after_fork(void) { pthread_mutex_init(&growing, NULL); }

static uint64_t attribute(CUhandle pool, int which) {
    uint64_t value = 0;
    return REAL(cuMemPoolGetAttribute)(pool, which, &value) == OK ? value : 0;
}

/* Sets what a pool is charged, and gives back or takes the difference. False where it cannot be taken. */
static bool recharge(CUhandle pool, int card, uint64_t bytes) {
    gy_blocks_lock();
    struct gy_block *known = gy_block_find((uint64_t)pool, GY_POOL);
    uint64_t before = known != NULL ? known->bytes : 0;
    bool granted = bytes <= before || gy_reserve(card, bytes - before);
    if (granted) {
        if (known != NULL) known->bytes = bytes;
        else gy_pools_used = gy_block_put((struct gy_block){.key = (uint64_t)pool, .bytes = bytes, .card = (int16_t)card, .kind = GY_POOL});
        if (bytes < before) gy_release(card, before - bytes);
    }
    gy_blocks_unlock();
    return granted;
}

static uint64_t charged(CUhandle pool) {
    gy_blocks_lock();
    struct gy_block *known = gy_block_find((uint64_t)pool, GY_POOL);
    uint64_t bytes = known != NULL ? known->bytes : 0;
    gy_blocks_unlock();
    return bytes;
}

static void settle_locked(int card) {
    for (;;) {
        CUhandle pool = NULL;
        uint64_t now = 0;
        gy_blocks_lock();
        for (struct gy_block *b = gy_block_next(NULL); b != NULL && pool == NULL; b = gy_block_next(b)) {
            if (b->kind != GY_POOL || b->card != card || b->references) continue; /* references: it is destroyed already */
            now = attribute((CUhandle)b->key, POOL_RESERVED);
            if (now < b->bytes) pool = (CUhandle)b->key;
        }
        gy_blocks_unlock();
        if (pool == NULL) return;
        recharge(pool, card, now);
    }
}

void gy_pools_settle(int card) {
    if (!gy_pools_used) return;
    pthread_mutex_lock(&growing);
    settle_locked(card);
    pthread_mutex_unlock(&growing);
}

void gy_pool_settle(uint64_t pool, int card) {
    pthread_mutex_lock(&growing);
    uint64_t now = attribute((CUhandle)pool, POOL_RESERVED);
    if (now < charged((CUhandle)pool)) recharge((CUhandle)pool, card, now);
    pthread_mutex_unlock(&growing);
}

/* Runs an allocation that may make the pool grow. */
static CUresult allocate(CUdeviceptr *pointer, size_t bytes, CUhandle pool, int card, CUstream stream,
                         CUresult (*real)(CUdeviceptr *, size_t, CUhandle, CUstream)) {
    pthread_mutex_lock(&growing);
    uint64_t reserved = attribute(pool, POOL_RESERVED), known = charged(pool);
    uint64_t growth = gy_round_up(bytes, CHUNK), wanted;
    CUresult result = OUT_OF_MEMORY;
    if (__builtin_add_overflow(reserved > known ? reserved : known, growth, &wanted)) wanted = UINT64_MAX;
    bool granted = recharge(pool, card, wanted);
    if (!granted) {
        settle_locked(card);
        reserved = attribute(pool, POOL_RESERVED);
        granted = recharge(pool, card, __builtin_add_overflow(reserved, growth, &wanted) ? UINT64_MAX : wanted);
    }
    if (granted) {
        result = real(pointer, bytes, pool, stream);
        recharge(pool, card, attribute(pool, POOL_RESERVED));
    }
    if (result == OK) {
        gy_block_keep(&(struct gy_block){.key = *pointer, .bytes = bytes, .owner = (uint64_t)pool, .card = (int16_t)card, .kind = GY_POOLED});
    }
    pthread_mutex_unlock(&growing);
    return result;
}

static CUresult real_from_pool(CUdeviceptr *p, size_t n, CUhandle pool, CUstream s) {
    return REAL(cuMemAllocFromPoolAsync)(p, n, pool, s);
}
static CUresult real_from_pool_ptsz(CUdeviceptr *p, size_t n, CUhandle pool, CUstream s) {
    return REAL(cuMemAllocFromPoolAsync_ptsz)(p, n, pool, s);
}
static CUresult real_async(CUdeviceptr *p, size_t n, CUhandle pool, CUstream s) {
    (void)pool;
    return REAL(cuMemAllocAsync)(p, n, s);
}
static CUresult real_async_ptsz(CUdeviceptr *p, size_t n, CUhandle pool, CUstream s) {
    (void)pool;
    return REAL(cuMemAllocAsync_ptsz)(p, n, s);
}

static bool is_capturing(CUstream stream, bool per_thread) {
    int status = CAPTURE_NONE;
    CUresult result = per_thread ? REAL(cuStreamIsCapturing_ptsz)(stream, &status) : REAL(cuStreamIsCapturing)(stream, &status);
    return result == OK && status != CAPTURE_NONE;
}

static CUresult from_current(CUdeviceptr *pointer, size_t bytes, CUstream stream, bool per_thread) {
    CUdevice device;
    CUhandle pool = NULL;
    bool captured = is_capturing(stream, per_thread); /* it becomes a node of a graph, and is charged with that */
    if (captured || REAL(cuCtxGetDevice)(&device) != OK || REAL(cuDeviceGetMemPool)(&pool, device) != OK)
        return per_thread ? REAL(cuMemAllocAsync_ptsz)(pointer, bytes, stream) : REAL(cuMemAllocAsync)(pointer, bytes, stream);
    int card = gy_card_of_device(device);
    if (card < 0) return NOT_PERMITTED;
    return allocate(pointer, bytes, pool, card, stream, per_thread ? real_async_ptsz : real_async);
}

/* The card that a pool lies on: noted when it was made, or it is the device's own. */
static int card_of_pool(CUhandle pool) {
    gy_blocks_lock();
    struct gy_block *known = gy_block_find((uint64_t)pool, GY_POOL);
    int card = known != NULL ? known->card : -1;
    gy_blocks_unlock();
    if (card >= 0) return card;
    for (card = 0; card < (int)gy_slice.card_count; card++) {
        CUhandle own = NULL;
        CUdevice device = gy_device_of_card(card);
        if (device >= 0 && REAL(cuDeviceGetDefaultMemPool)(&own, device) == OK && own == pool) return card;
    }
    return -1;
}

static CUresult from_pool(CUdeviceptr *pointer, size_t bytes, CUhandle pool, CUstream stream, bool per_thread) {
    int card = card_of_pool(pool);
    if (card < 0 || is_capturing(stream, per_thread)) /* host memory, a captured node, or no pool at all */
        return per_thread ? REAL(cuMemAllocFromPoolAsync_ptsz)(pointer, bytes, pool, stream)
                          : REAL(cuMemAllocFromPoolAsync)(pointer, bytes, pool, stream);
    return allocate(pointer, bytes, pool, card, stream, per_thread ? real_from_pool_ptsz : real_from_pool);
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream) {
    ENTER();
    return from_current(pointer, bytes, stream, false);
}

EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUstream stream) {
    ENTER();
    return from_current(pointer, bytes, stream, true);
}

EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t bytes, CUhandle pool, CUstream stream) {
    ENTER();
    return from_pool(pointer, bytes, pool, stream, false);
}

EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUhandle pool, CUstream stream) {
    ENTER();
    return from_pool(pointer, bytes, pool, stream, true);
}



static CUresult free_async(CUdeviceptr pointer, CUstream stream, bool per_thread) {
    struct gy_block block;
    bool pooled = gy_block_take(pointer, GY_POOLED, &block);
    bool plain = !pooled && gy_block_take(pointer, GY_PLAIN, &block);
    CUresult result = per_thread ? REAL(cuMemFreeAsync_ptsz)(pointer, stream) : REAL(cuMemFreeAsync)(pointer, stream);
    if (result != OK && (pooled || plain)) {
        gy_block_keep(&block);
    } else if (result == OK && plain) {
        gy_release(block.card, block.bytes);
    } else if (result == OK && pooled) {
        gy_pool_settle(block.owner, block.card);
    }
    return result;
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
    ENTER();
    return free_async(pointer, stream, false);
}

EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
    ENTER();
    return free_async(pointer, stream, true);
}

EXPORT CUresult cuMemPoolCreate(CUhandle *pool, const struct gy_pool_props *props) {
    ENTER();
    int card = -1;
    if (props != NULL && props->location.type == LOCATION_DEVICE) {
        card = gy_card_of_device(props->location.id);
        if (card < 0) return NOT_PERMITTED;
    }
    CUresult result = REAL(cuMemPoolCreate)(pool, props);
    if (result == OK && card >= 0) recharge(*pool, card, attribute(*pool, POOL_RESERVED));
    return result;
}

/* Allocations of a pool outlive it: what they hold stays charged until the process ends. */
EXPORT CUresult cuMemPoolDestroy(CUhandle pool) {
    ENTER();
    pthread_mutex_lock(&growing);
    uint64_t still_used = attribute(pool, POOL_USED);
    CUresult result = REAL(cuMemPoolDestroy)(pool);
    struct gy_block block;
    if (result == OK && gy_block_take((uint64_t)pool, GY_POOL, &block) && block.bytes > still_used)
        gy_release(block.card, block.bytes - still_used);
    pthread_mutex_unlock(&growing);
    return result;
}

EXPORT CUresult cuMemPoolTrimTo(CUhandle pool, size_t keep) {
    ENTER();
    CUresult result = REAL(cuMemPoolTrimTo)(pool, keep);
    int card = card_of_pool(pool);
    if (card >= 0) gy_pools_settle(card);
    return result;
}

