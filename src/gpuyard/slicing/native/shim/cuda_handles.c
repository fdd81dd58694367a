/* Virtual memory management: physical memory is a handle, and lives until it is released and unmapped everywhere. */
#include "cuda_shim.h"

static void remember(CUmemory handle, int card, uint64_t bytes) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL) known->references++;
    else gy_block_put(&(struct gy_block){.key = handle, .bytes = bytes, .card = (int16_t)card, .kind = GY_HANDLE, .references = 1});
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

EXPORT CUresult cuMemCreate(CUmemory *handle, size_t bytes, const struct gy_allocation_prop *prop, unsigned long long flags) {
    ENTER();
    if (prop == NULL || prop->location.type != LOCATION_DEVICE) return REAL(cuMemCreate)(handle, bytes, prop, flags);
    int card = gy_card_of_device(prop->location.id);
    CUresult result = gy_grant(card, bytes);
    if (result != OK) return result;
    result = REAL(cuMemCreate)(handle, bytes, prop, flags);
    if (result == OK) remember(*handle, card, bytes);
    else gy_release(card, bytes);
    return result;
}

EXPORT CUresult cuMemRelease(CUmemory handle) {
    ENTER();
    CUresult result = REAL(cuMemRelease)(handle);
    if (result == OK) forget(handle);
    return result;
}

EXPORT CUresult cuMemRetainAllocationHandle(CUmemory *handle, void *address) {
    ENTER();
    CUresult result = REAL(cuMemRetainAllocationHandle)(handle, address);
    if (result != OK) return result;
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(*handle, GY_HANDLE);
    if (known != NULL) known->references++;
    gy_let_go(&gy_blocks_busy);
    return OK;
}

/* Memory that came from another process has no size until it is mapped. It is charged again there, because nothing tells
 * whether the process that made it still holds it: its name alone is kept now. */
EXPORT CUresult cuMemImportFromShareableHandle(CUmemory *handle, void *os_handle, int type) {
    ENTER();
    CUresult result = REAL(cuMemImportFromShareableHandle)(handle, os_handle, type);
    if (result == OK) remember(*handle, -1, 0);
    return result;
}

/* Charges an imported handle the first time that it is mapped. */
static CUresult charge_import(CUmemory handle, size_t bytes) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *known = gy_block_find(handle, GY_HANDLE);
    bool is_new = known != NULL && known->card < 0;
    gy_let_go(&gy_blocks_busy);
    if (!is_new) return OK;
    int card = gy_card_now();
    CUresult result = gy_grant(card, bytes);
    if (result != OK) return result;
    gy_hold(&gy_blocks_busy);
    known = gy_block_find(handle, GY_HANDLE);
    if (known != NULL) {
        known->card = (int16_t)card;
        known->bytes = bytes;
    }
    gy_let_go(&gy_blocks_busy);
    return OK;
}

EXPORT CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemory handle, unsigned long long flags) {
    ENTER();
    CUresult result = charge_import(handle, bytes);
    if (result != OK) return result;
    result = REAL(cuMemMap)(address, bytes, offset, handle, flags);
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

EXPORT CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
    ENTER();
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
