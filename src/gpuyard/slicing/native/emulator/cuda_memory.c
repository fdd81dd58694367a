/* Plain allocations: linear, pitched, managed, and of the host. */
#include "cuda_state.h"
#include <stdlib.h>
#include <string.h>

static CUresult allocate(const char *function, CUdeviceptr *address, uint64_t size, enum block_kind kind) {
    handle context, block;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!address || !size, INVALID_VALUE);
    CUresult result = gy_capture_forbidden();
    if (!result) result = gy_block(context, context->card, size, size, kind, &block);
    if (!result) *address = block->b.address;
    OUT(result);
}

GY_API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) { return allocate(__func__, address, size, LINEAR); }

/* The first version's addresses have 32 bits, and none of ours does. */
GY_API CUresult cuMemAlloc(unsigned *address, unsigned size) {
    (void)address, (void)size;
    return NOT_SUPPORTED;
}

GY_API CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element) {
    if (!pitch || !width || !height || (element != 4 && element != 8 && element != 16)) return INVALID_VALUE;
    uint64_t row, size;
    if (__builtin_add_overflow(width, 511, &row)) return OUT_OF_MEMORY;
    row &= ~511ull;
    if (__builtin_mul_overflow(row, height, &size)) return OUT_OF_MEMORY;
    TRY(allocate(__func__, address, size, LINEAR));
    *pitch = row;
    return CUDA_SUCCESS;
}

GY_API CUresult cuMemAllocManaged(CUdeviceptr *address, size_t size, unsigned flags) {
    if (flags != 1 && flags != 2) return INVALID_VALUE;
    return allocate(__func__, address, size, MANAGED);
}

static CUresult release(const char *function, CUdeviceptr address) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!address, CUDA_SUCCESS);
    handle block = gy_table_at(address);
    REFUSE_IF(!block || block->kind != BLOCK || block->b.address != address, INVALID_VALUE);
    REFUSE_IF(block->b.kind == IPC || block->b.kind == MAPPED || block->b.kind == ARRAY_MEMORY, INVALID_VALUE);
    CUresult result = gy_capture_forbidden();
    REFUSE_IF(result, result);
    gy_lane *lane = gy_lane_on(block->card); /* the memory may be in use until the card is idle */
    if (lane && lane->tail) gy_wait_mark(lane, lane->tail - 1);
    if (gy_table_at(address) == block) gy_block_free(block);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemFree_v2(CUdeviceptr address) { return release(__func__, address); }
GY_API CUresult cuMemFree(unsigned address) { return release(__func__, address); }

static CUresult information(const char *function, uint64_t *free_bytes, uint64_t *total) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!free_bytes || !total, INVALID_VALUE);
    gy_reap();
    uint64_t limit = gy_group_limit(context->card), all = gy_total(context->card), left = all - gy_used(context->card);
    *free_bytes = left;
    *total = all;
    if (limit < all) {
        uint64_t used = gy_group_used(context->card, gy_here->processes[gy_process()].group);
        *total = limit;
        *free_bytes = used >= limit ? 0 : limit - used < left ? limit - used : left;
    }
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    uint64_t f = 0, t = 0;
    if (!free_bytes || !total) return INVALID_VALUE;
    TRY(information(__func__, &f, &t));
    *free_bytes = f;
    *total = t;
    return CUDA_SUCCESS;
}

GY_API CUresult cuMemGetInfo(unsigned *free_bytes, unsigned *total) {
    uint64_t f = 0, t = 0;
    if (!free_bytes || !total) return INVALID_VALUE;
    TRY(information(__func__, &f, &t));
    *free_bytes = f > UINT32_MAX ? UINT32_MAX : (unsigned)f;
    *total = t > UINT32_MAX ? UINT32_MAX : (unsigned)t;
    return CUDA_SUCCESS;
}

GY_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *start, size_t *size, CUdeviceptr address) {
    IN_CONTEXT;
    (void)context;
    handle block = gy_block_around(address);
    REFUSE_IF(!block, NOT_FOUND);
    if (start) *start = block->b.address;
    if (size) *size = block->b.size;
    OUT(CUDA_SUCCESS);
}

/* Host memory is the host's: it is no device's, and only its handles are kept. */
static CUresult allocate_host(const char *function, void **memory, size_t size) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!memory || !size, INVALID_VALUE);
    *memory = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
    REFUSE_IF(!*memory, OUT_OF_MEMORY);
    handle object = gy_new(HOST, context->card, NULL);
    object->b.address = (uint64_t)(uintptr_t)*memory;
    object->b.size = size;
    gy_table_put(object->b.address, object);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemAllocHost_v2(void **memory, size_t size) { return allocate_host(__func__, memory, size); }
GY_API CUresult cuMemAllocHost(void **memory, unsigned size) { return allocate_host(__func__, memory, size); }
GY_API CUresult cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
    return flags & ~7u ? INVALID_VALUE : allocate_host(__func__, memory, size);
}

static handle host_at(const void *memory) {
    handle object = gy_table_at((uint64_t)(uintptr_t)memory);
    return object && object->kind == HOST && object->b.address == (uint64_t)(uintptr_t)memory ? object : NULL;
}

GY_API CUresult cuMemFreeHost(void *memory) {
    IN;
    handle object = host_at(memory);
    REFUSE_IF(!object || object->b.pool, INVALID_VALUE);
    gy_table_take(object->b.address);
    gy_delete(object);
    free(memory);
    OUT(CUDA_SUCCESS);
}

static CUresult enlist(const char *function, void *memory, size_t size) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!memory || !size || host_at(memory), INVALID_VALUE);
    handle object = gy_new(HOST, context->card, NULL);
    object->b.address = (uint64_t)(uintptr_t)memory;
    object->b.size = size;
    object->b.pool = object; /* its memory is the program's own */
    gy_table_put(object->b.address, object);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemHostRegister_v2(void *memory, size_t size, unsigned flags) {
    (void)flags;
    return enlist(__func__, memory, size);
}
GY_API CUresult cuMemHostRegister(void *memory, size_t size, unsigned flags) {
    (void)flags;
    return enlist(__func__, memory, size);
}

GY_API CUresult cuMemHostUnregister(void *memory) {
    IN;
    handle object = host_at(memory);
    REFUSE_IF(!object || !object->b.pool, INVALID_VALUE);
    gy_table_take(object->b.address);
    gy_delete(object);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *memory, unsigned flags) {
    IN_CONTEXT;
    (void)context;
    REFUSE_IF(!address || flags || !host_at(memory), INVALID_VALUE);
    *address = (uint64_t)(uintptr_t)memory;
    OUT(CUDA_SUCCESS);
}

enum { POINTER_CONTEXT = 1, POINTER_MEMORY_TYPE = 2, POINTER_DEVICE = 3, POINTER_HOST = 4, POINTER_ID = 7, POINTER_MANAGED = 8,
       POINTER_ORDINAL = 9, POINTER_START = 11, POINTER_SIZE = 12 };

static CUresult attribute(void *data, int which, handle block, CUdeviceptr address) {
    bool host = block->kind == HOST;
    switch (which) {
    case POINTER_CONTEXT: *(handle *)data = block->context; return CUDA_SUCCESS;
    case POINTER_MEMORY_TYPE: *(unsigned *)data = host ? 1 : 2; return CUDA_SUCCESS;
    case POINTER_DEVICE: *(CUdeviceptr *)data = address; return CUDA_SUCCESS;
    case POINTER_HOST:
        if (!host && block->b.kind != MANAGED) return INVALID_VALUE;
        *(uint64_t *)data = address;
        return CUDA_SUCCESS;
    case POINTER_ID: *(uint64_t *)data = block->b.address; return CUDA_SUCCESS;
    case POINTER_MANAGED: *(unsigned *)data = !host && block->b.kind == MANAGED; return CUDA_SUCCESS;
    case POINTER_ORDINAL: *(int *)data = gy_device_number(block->card); return CUDA_SUCCESS;
    case POINTER_START: *(CUdeviceptr *)data = block->b.address; return CUDA_SUCCESS;
    case POINTER_SIZE: *(size_t *)data = block->b.size; return CUDA_SUCCESS;
    default: return NOT_SUPPORTED;
    }
}

GY_API CUresult cuPointerGetAttribute(void *data, int which, CUdeviceptr address) {
    IN;
    handle block = host_at((void *)(uintptr_t)address);
    if (!block) block = gy_block_around(address);
    REFUSE_IF(!data || !block, INVALID_VALUE);
    OUT(attribute(data, which, block, address));
}
