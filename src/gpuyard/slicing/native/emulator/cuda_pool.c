/* Stream-ordered allocation: pools take the card's memory in chunks, and keep it until they are trimmed, or until a
 * synchronisation finds more than their release threshold unused. Frees take effect at once, as nothing is computed. */
#include "cuda_state.h"

#define CHUNK (32ull << 20)

static handle standard[GY_MAX_CARDS], chosen[GY_MAX_CARDS];

handle gy_default_pool(uint32_t card) {
    if (!gy_get(standard[card], POOL)) {
        standard[card] = gy_new(POOL, card, NULL);
        standard[card]->p.is_default = 1;
    }
    return standard[card];
}

CUresult gy_pool_take(handle pool, uint64_t size) {
    uint64_t need;
    if (__builtin_add_overflow(pool->p.used, size, &need)) return OUT_OF_MEMORY;
    if (pool->p.max && need > pool->p.max) return OUT_OF_MEMORY;
    if (need > pool->p.reserved) {
        uint64_t more;
        if (__builtin_add_overflow(need - pool->p.reserved, CHUNK - 1, &more)) return OUT_OF_MEMORY;
        more -= more % CHUNK;
        if (!gy_reserve(pool->card, more)) return OUT_OF_MEMORY;
        pool->p.reserved += more;
        if (pool->p.reserved > pool->p.reserved_high) pool->p.reserved_high = pool->p.reserved;
    }
    pool->p.used = need;
    if (need > pool->p.used_high) pool->p.used_high = need;
    return CUDA_SUCCESS;
}

void gy_pool_return(handle pool, uint64_t size) { pool->p.used -= size; }

void gy_pool_release(handle pool, uint64_t keep) {
    uint64_t floor = pool->p.used > keep ? pool->p.used : keep;
    floor += (CHUNK - floor % CHUNK) % CHUNK;
    if (floor >= pool->p.reserved) return;
    gy_give_back(pool->card, pool->p.reserved - floor);
    pool->p.reserved = floor;
}

static void settle(handle pool, void *card_and_threshold) {
    const uint32_t *wish = card_and_threshold;
    if (pool->card == wish[0]) gy_pool_release(pool, wish[1] ? pool->p.threshold : 0);
}

void gy_pools_settle(uint32_t card, bool threshold) {
    uint32_t wish[] = {card, threshold};
    gy_each(POOL, settle, wish);
}

static handle pool_in_use(uint32_t card) { return gy_get(chosen[card], POOL) ? chosen[card] : gy_default_pool(card); }

static CUresult allocate_async(const char *function, bool own, CUdeviceptr *address, uint64_t size, handle pool, bool given,
                               handle stream_given) {
    handle context, stream, block, node;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!address || !size, INVALID_VALUE);
    REFUSE_IF(given && !gy_get(pool, POOL), INVALID_VALUE);
    CUresult result = gy_stream(context, stream_given, own, &stream);
    if (!given) pool = pool_in_use(context->card);
    if (!result && gy_capturing(stream)) { /* becomes an allocation node, whose memory comes with the graph */
        result = gy_block(context, context->card, size, 0, GRAPH_OWNED, &block);
        if (!result) result = gy_capture_node(stream, 10, &node);
        if (!result) node->n.parameters.allocation.size = size, node->n.parameters.allocation.address = block->b.address;
    } else if (!result) {
        result = gy_pool_take(pool, size);
        if (!result) result = gy_block(context, pool->card, size, 0, POOLED, &block);
        if (!result) block->b.pool = pool, result = gy_stream_work(stream, 0);
    }
    if (!result) *address = block->b.address;
    OUT(result);
}

#define cuMemAllocAsync_on(function, own, a, n, s) allocate_async(function, own, a, n, NULL, false, s)
#define cuMemAllocFromPoolAsync_on(function, own, a, n, p, s) allocate_async(function, own, a, n, p, true, s)
BOTH(cuMemAllocAsync, _ptsz, (CUdeviceptr *a, size_t n, handle s), a, n, s)
BOTH(cuMemAllocFromPoolAsync, _ptsz, (CUdeviceptr *a, size_t n, handle p, handle s), a, n, p, s)

static CUresult cuMemFreeAsync_on(const char *function, bool own, CUdeviceptr address, handle given) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    handle block = gy_table_at(address);
    REFUSE_IF(!address || !block || block->kind != BLOCK || block->b.address != address, INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    if (!result && gy_capturing(stream)) {
        result = gy_capture_node(stream, 11, &node);
        if (!result) node->n.parameters.freed = address;
        OUT(result);
    }
    if (!result) result = gy_stream_work(stream, 0);
    if (!result && gy_table_at(address) == block) gy_block_free(block);
    OUT(result);
}
BOTH(cuMemFreeAsync, _ptsz, (CUdeviceptr a, handle s), a, s)

#define OF_DEVICE(pointer) \
    IN; \
    REFUSE_IF(!(pointer), INVALID_VALUE); \
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE); \
    uint32_t card = gy_visible[device]

GY_API CUresult cuDeviceGetDefaultMemPool(handle *pool, CUdevice device) {
    OF_DEVICE(pool);
    *pool = gy_default_pool(card);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetMemPool(handle *pool, CUdevice device) {
    OF_DEVICE(pool);
    *pool = pool_in_use(card);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceSetMemPool(CUdevice device, handle pool) {
    OF_DEVICE(gy_get(pool, POOL));
    REFUSE_IF(pool->card != card, INVALID_VALUE);
    chosen[card] = pool;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemPoolCreate(handle *pool, const pool_properties *wish) {
    IN;
    REFUSE_IF(!pool || !wish || wish->type != 1 || wish->where.type != 1, INVALID_VALUE);
    REFUSE_IF(wish->where.id < 0 || wish->where.id >= gy_visible_count, INVALID_DEVICE);
    *pool = gy_new(POOL, gy_visible[wish->where.id], NULL);
    (*pool)->p.max = wish->max_size;
    OUT(CUDA_SUCCESS);
}

static void orphan(handle block, void *pool) {
    if (block->b.pool == pool) block->b.pool = NULL, block->b.charged = block->b.size;
}

GY_API CUresult cuMemPoolDestroy(handle pool) {
    IN;
    REFUSE_IF(!gy_get(pool, POOL) || pool->p.is_default, INVALID_VALUE);
    gy_each(BLOCK, orphan, pool); /* what is still out stays charged until it is freed */
    gy_give_back(pool->card, pool->p.reserved - pool->p.used);
    gy_delete(pool);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemPoolTrimTo(handle pool, size_t keep) {
    IN;
    REFUSE_IF(!gy_get(pool, POOL), INVALID_VALUE);
    gy_pool_release(pool, keep);
    OUT(CUDA_SUCCESS);
}

/* Attributes 1 to 3 are options; then the threshold, and reserved and used, each now and at their highest. */
GY_API CUresult cuMemPoolGetAttribute(handle pool, int which, void *value) {
    IN;
    REFUSE_IF(!gy_get(pool, POOL) || !value || which < 1 || which > 8, INVALID_VALUE);
    if (which <= 3) *(int *)value = !pool->p.options[which];
    else {
        const uint64_t values[] = {pool->p.threshold, pool->p.reserved, pool->p.reserved_high, pool->p.used, pool->p.used_high};
        *(uint64_t *)value = values[which - 4];
    }
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemPoolSetAttribute(handle pool, int which, void *value) {
    IN;
    REFUSE_IF(!gy_get(pool, POOL) || !value || which < 1 || which > 8, INVALID_VALUE);
    if (which <= 3) pool->p.options[which] = !*(int *)value;
    else if (which == 4) pool->p.threshold = *(uint64_t *)value;
    else REFUSE_IF(*(uint64_t *)value || which == 5 || which == 7, INVALID_VALUE);
    if (which == 6) pool->p.reserved_high = pool->p.reserved;
    if (which == 8) pool->p.used_high = pool->p.used;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemPoolSetAccess(handle pool, const access_description *map, size_t count) {
    IN;
    REFUSE_IF(!gy_get(pool, POOL) || (count && !map), INVALID_VALUE);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemPoolGetAccess(int *flags, handle pool, location *where) {
    IN;
    REFUSE_IF(!flags || !where || !gy_get(pool, POOL), INVALID_VALUE);
    *flags = where->type == 1 && where->id == gy_device_number(pool->card) ? 3 : 0;
    OUT(CUDA_SUCCESS);
}
