/* Virtual memory management: physical memory is a handle, and lives until it is released and unmapped everywhere. */
#include "cuda_shim.h"

/* One reference more to a known handle, or one that is known from now on. */
static void remember(CUmemory handle, const struct gy_block *fresh) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL) known->references++;
    else if (fresh != NULL) gy_block_put(fresh);
    gy_let_go(&gy_blocks_busy);
}

/* One reference less; the last one gives the memory back. */
static void forget(CUmemory handle) {
    struct gy_block gone = {.card = -1};
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL && --known->references == 0) {
        gone = *known;
        gy_block_remove(known);
    }
    gy_let_go(&gy_blocks_busy);
    if (gone.card >= 0) gy_release(gone.card, gone.bytes);
}

OURS(cuMemCreate)(CUmemory *handle, size_t bytes, const struct gy_allocation_prop *prop, unsigned long long flags) {
    if (prop == NULL || prop->location.type != LOCATION_DEVICE) return REAL(cuMemCreate)(handle, bytes, prop, flags);
    int card = gy_card_of_device(prop->location.id);
    CUresult result = gy_grant(card, bytes);
    if (result != OK) return result;
    result = REAL(cuMemCreate)(handle, bytes, prop, flags);
    struct gy_block block = {.key = result == OK ? *handle : 0, .bytes = bytes, .card = (int16_t)card, .kind = GY_HANDLE, .references = 1};
    return gy_granted(result, &block, NULL);
}

OURS(cuMemRelease)(CUmemory handle) {
    CUresult result = REAL(cuMemRelease)(handle);
    if (result == OK) forget(handle);
    return result;
}

OURS(cuMemRetainAllocationHandle)(CUmemory *handle, void *address) {
    CUresult result = REAL(cuMemRetainAllocationHandle)(handle, address);
    if (result == OK) remember(*handle, NULL);
    return result;
}

/* Memory that came from another process has no size until it is mapped. It is charged again there, because nothing tells
 * whether the process that made it still holds it: its name alone is kept now. */
OURS(cuMemImportFromShareableHandle)(CUmemory *handle, void *os_handle, int type) {
    CUresult result = REAL(cuMemImportFromShareableHandle)(handle, os_handle, type);
    if (result == OK) remember(*handle, &(struct gy_block){.key = *handle, .card = -1, .kind = GY_HANDLE, .references = 1});
    return result;
}

/* Charges an imported handle the first time that it is mapped. */
static CUresult charge_import(CUmemory handle, size_t bytes) {
    CUresult result = OK;
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL && known->card < 0) {
        int card = gy_card_now();
        result = card < 0 ? NOT_PERMITTED : gy_reserve(card, bytes) ? OK : OUT_OF_MEMORY;
        if (result == OK) known->card = (int16_t)card, known->bytes = bytes;
    }
    gy_let_go(&gy_blocks_busy);
    return result;
}

OURS(cuMemMap)(CUdeviceptr address, size_t bytes, size_t offset, CUmemory handle, unsigned long long flags) {
    CUresult result = charge_import(handle, bytes);
    if (result == OK) result = REAL(cuMemMap)(address, bytes, offset, handle, flags);
    if (result != OK) return result;
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL) {
        known->references++;
        gy_block_put(&(struct gy_block){.key = address, .owner = handle, .bytes = bytes, .card = -1, .kind = GY_MAPPING});
    }
    gy_let_go(&gy_blocks_busy);
    return OK;
}

static CUmemory take_mapping(CUdeviceptr address, size_t bytes, size_t *span) {
    CUmemory handle = 0;
    gy_hold(&gy_blocks_busy);
    struct gy_block *mapping = gy_block_find(address, GY_MAPPING);
    if (mapping == NULL) /* not the start of one: the range may hold several, or begin before them */
        for (mapping = gy_block_next(NULL); mapping != NULL; mapping = gy_block_next(mapping))
            if (mapping->kind == GY_MAPPING && mapping->key - address < bytes) break;
    if (mapping != NULL && mapping->key - address < bytes) {
        handle = mapping->owner;
        *span = mapping->bytes;
        gy_block_remove(mapping);
    }
    gy_let_go(&gy_blocks_busy);
    return handle;
}

OURS(cuMemUnmap)(CUdeviceptr address, size_t bytes) {
    CUresult result = REAL(cuMemUnmap)(address, bytes);
    if (result != OK) return result;
    size_t left = bytes, span = 0;
    CUmemory handle;
    while (left > 0 && (handle = take_mapping(address, bytes, &span)) != 0) {
        forget(handle);
        left -= span < left ? span : left;
    }
    return OK;
}
