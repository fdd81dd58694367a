/* Physical memory and address ranges apart: created, mapped, exported by file descriptor. The creator is charged; what another
 * process imports is the same memory, and costs it nothing. */
#include "cuda_state.h"
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GRANULARITY (2ull << 20)

struct shared { uint64_t magic, size; uint32_t card, reserved; };
#define SHARED_MAGIC 0x4d454d4555594747ull

static void drop_use(handle physical) {
    if (--physical->v.uses) return;
    if (!physical->v.imported) gy_give_back(physical->card, physical->v.size);
    gy_delete(physical);
}

static CUresult check(const allocation_properties *wish) {
    if (!wish || wish->type != 1) return INVALID_VALUE;
    if (wish->where.type == 1) return wish->where.id < 0 || wish->where.id >= gy_visible_count ? INVALID_DEVICE : CUDA_SUCCESS;
    return wish->where.type >= 2 && wish->where.type <= 4 ? CUDA_SUCCESS : INVALID_VALUE;
}

GY_API CUresult cuMemGetAllocationGranularity(size_t *granularity, const allocation_properties *wish, int option) {
    IN;
    REFUSE_IF(!granularity || option < 0 || option > 1, INVALID_VALUE);
    CUresult result = check(wish);
    if (!result) *granularity = GRANULARITY;
    OUT(result);
}

GY_API CUresult cuMemCreate(handle *answer, size_t size, const allocation_properties *wish, unsigned long long flags) {
    IN;
    REFUSE_IF(!answer || flags || !size || size % GRANULARITY, INVALID_VALUE);
    CUresult result = check(wish);
    REFUSE_IF(result, result);
    bool device = wish->where.type == 1;
    uint32_t card = device ? gy_visible[wish->where.id] : 0;
    REFUSE_IF(device && !gy_reserve(card, size), OUT_OF_MEMORY);
    handle made = gy_new(PHYSICAL, card, NULL);
    made->v.size = size;
    made->v.uses = 1;
    made->v.imported = !device; /* the host's memory is on no card */
    made->v.handle_type = wish->handle_types;
    *answer = made;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemRelease(handle physical) {
    IN;
    REFUSE_IF(!gy_get(physical, PHYSICAL) || physical->v.released, INVALID_VALUE);
    physical->v.released = physical->v.uses == 1;
    drop_use(physical);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wish, unsigned long long flags) {
    IN;
    (void)wish;
    REFUSE_IF(!address || !size || flags || size % GRANULARITY || (alignment & (alignment - 1)), INVALID_VALUE);
    uint64_t room;
    CUdeviceptr start = gy_address(size, &room);
    REFUSE_IF(!start, OUT_OF_MEMORY);
    handle range = gy_new(RANGE, 0, NULL);
    range->b.address = start;
    range->b.size = size;
    range->b.room = room;
    gy_table_put(start, range);
    *address = start;
    OUT(CUDA_SUCCESS);
}

struct within { CUdeviceptr address; uint64_t size; handle found; };

static void contains(handle range, void *with) {
    struct within *w = with;
    if (w->address >= range->b.address && w->address + w->size <= range->b.address + range->b.size) w->found = range;
}

static void overlaps(handle block, void *with) {
    struct within *w = with;
    if (block->b.address < w->address + w->size && w->address < block->b.address + block->b.size) w->found = block;
}

static handle search(enum kind kind, void (*how)(handle, void *), CUdeviceptr address, uint64_t size) {
    struct within w = {address, size, NULL};
    gy_each(kind, how, &w);
    return w.found;
}

GY_API CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
    IN;
    handle range = search(RANGE, contains, address, size);
    REFUSE_IF(!range || range->b.address != address || range->b.size != size, INVALID_VALUE);
    REFUSE_IF(search(BLOCK, overlaps, address, size), INVALID_VALUE);
    gy_table_take(address);
    gy_address_free(address, range->b.room, true);
    gy_delete(range);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, handle physical, unsigned long long flags) {
    IN;
    REFUSE_IF(flags || offset || !size || size % GRANULARITY || !gy_get(physical, PHYSICAL), INVALID_VALUE);
    REFUSE_IF(size > physical->v.size || !search(RANGE, contains, address, size), INVALID_VALUE);
    REFUSE_IF(search(BLOCK, overlaps, address, size), ALREADY_MAPPED);
    handle range = gy_table_at(address);
    handle block = gy_new(BLOCK, physical->card, NULL);
    block->b.address = address;
    block->b.size = size;
    block->b.kind = MAPPED;
    block->owner = physical;
    block->next = range && range->kind == RANGE ? range : NULL; /* the range comes back to its address on unmapping */
    gy_table_put(address, block);
    physical->v.uses++;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
    IN;
    handle first = gy_table_at(address);
    REFUSE_IF(!first || first->kind != BLOCK || first->b.kind != MAPPED, INVALID_VALUE);
    for (uint64_t at = address; at < address + size;) { /* one call may unmap several neighbours */
        handle block = gy_table_at(at);
        REFUSE_IF(!block || block->kind != BLOCK || block->b.kind != MAPPED, INVALID_VALUE);
        at += block->b.size;
        gy_table_take(block->b.address);
        if (block->next) gy_table_put(block->b.address, block->next);
        drop_use(block->owner);
        gy_delete(block);
    }
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const access_description *map, size_t count) {
    IN;
    REFUSE_IF(!map || !count || !search(BLOCK, overlaps, address, size), INVALID_VALUE);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemGetAllocationPropertiesFromHandle(allocation_properties *answer, handle physical) {
    IN;
    REFUSE_IF(!answer || !gy_get(physical, PHYSICAL), INVALID_VALUE);
    *answer = (allocation_properties){.type = 1, .handle_types = physical->v.handle_type,
                                      .where = {1, gy_device_number(physical->card)}};
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemRetainAllocationHandle(handle *answer, void *address) {
    IN;
    handle block = gy_block_around((CUdeviceptr)(uintptr_t)address);
    REFUSE_IF(!answer || !block || block->b.kind != MAPPED, INVALID_VALUE);
    block->owner->v.uses++;
    block->owner->v.released = false;
    *answer = block->owner;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemExportToShareableHandle(void *answer, handle physical, int type, unsigned long long flags) {
    IN;
    REFUSE_IF(!answer || flags || type != 1 || !gy_get(physical, PHYSICAL), INVALID_VALUE);
    REFUSE_IF(!(physical->v.handle_type & 1), INVALID_VALUE);
    struct shared shared = {SHARED_MAGIC, physical->v.size, physical->card, 0};
    int file = (int)syscall(SYS_memfd_create, "gpuyard-emulator", 1u /* close on exec */);
    REFUSE_IF(file < 0, OUT_OF_MEMORY);
    if (pwrite(file, &shared, sizeof shared, 0) != (ssize_t)sizeof shared) {
        close(file);
        OUT(UNKNOWN);
    }
    *(int *)answer = file;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuMemImportFromShareableHandle(handle *answer, void *descriptor, int type) {
    IN;
    struct shared shared;
    REFUSE_IF(!answer || type != 1, INVALID_VALUE);
    REFUSE_IF(pread((int)(intptr_t)descriptor, &shared, sizeof shared, 0) != (ssize_t)sizeof shared, INVALID_VALUE);
    REFUSE_IF(shared.magic != SHARED_MAGIC || shared.card >= gy_here->card_count, INVALID_VALUE);
    handle made = gy_new(PHYSICAL, shared.card, NULL);
    made->v.size = shared.size;
    made->v.uses = 1;
    made->v.imported = true;
    made->v.handle_type = 1;
    *answer = made;
    OUT(CUDA_SUCCESS);
}
