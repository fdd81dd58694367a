/* Device memory: reserve in the ledger, ask the driver, roll back if it refuses. What is freed is given back after the driver
 * has freed it, and leaves the table before, so that an address that is handed out again at once is never confused. */
#include <string.h>

#include "cuda_shim.h"

enum { GRAIN = 512 }; /* the driver's smallest allocation */

static uint64_t context_now(void) {
    CUcontext context = NULL;
    return REAL(cuCtxGetCurrent)(&context) == OK ? (uint64_t)(uintptr_t)context : 0;
}

/* Reserves on the card of the current context. Where there is none, the driver is asked and says so itself. */
static CUresult reserve(int *card, uint64_t bytes) {
    CUdevice device;
    *card = -1;
    if (bytes == 0 || REAL(cuCtxGetDevice)(&device) != OK) return OK;
    *card = gy_card_of_device(device);
    if (*card < 0) return NOT_PERMITTED;
    if (gy_reserve(*card, bytes)) return OK;
    gy_pools_settle(*card);
    return gy_reserve(*card, bytes) ? OK : OUT_OF_MEMORY;
}

static CUresult keep(CUresult result, enum gy_kind kind, int card, uint64_t bytes, uint64_t key, CUresult (*undo)(uint64_t)) {
    if (UNLIKELY(card < 0)) return result;
    if (result == OK) {
        struct gy_block block = {.key = key, .bytes = bytes, .owner = context_now(), .card = (int16_t)card, .kind = (uint8_t)kind};
        if (gy_block_keep(&block)) return OK;
        undo(key); /* this process has no memory left to remember it */
        result = OUT_OF_MEMORY;
    }
    gy_release(card, bytes);
    return result;
}

static CUresult undo_memory(uint64_t pointer) { return REAL(cuMemFree_v2)(pointer); }
static CUresult undo_array(uint64_t array) { return REAL(cuArrayDestroy)((CUhandle)(uintptr_t)array); }
static CUresult undo_mipmaps(uint64_t array) { return REAL(cuMipmappedArrayDestroy)((CUhandle)array); }

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    ENTER();
    int card;
    uint64_t charged = gy_round_up(bytes, GRAIN);
    CUresult result = reserve(&card, charged);
    if (result != OK) return result;
    result = REAL(cuMemAlloc_v2)(pointer, bytes);
    return keep(result, GY_PLAIN, card, charged, result == OK ? *pointer : 0, undo_memory);
}

EXPORT CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned flags) {
    ENTER();
    int card;
    uint64_t charged = gy_round_up(bytes, GRAIN);
    CUresult result = reserve(&card, charged);
    if (result != OK) return result;
    result = REAL(cuMemAllocManaged)(pointer, bytes, flags);
    return keep(result, GY_PLAIN, card, charged, result == OK ? *pointer : 0, undo_memory);
}

/* The driver chooses the pitch: what it is likely to be is reserved first, and the rest when it is known. */
EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned element) {
    ENTER();
    int card;
    uint64_t row = gy_round_up(width, GRAIN), guess;
    if (__builtin_mul_overflow(row, (uint64_t)height, &guess)) return OUT_OF_MEMORY;
    CUresult result = reserve(&card, guess);
    if (result != OK) return result;
    result = REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element);
    uint64_t charged = guess;
    if (result == OK && card >= 0 && *pitch > row) {
        if (__builtin_mul_overflow((uint64_t)*pitch, (uint64_t)height, &charged) || !gy_reserve(card, charged - guess)) {
            undo_memory(*pointer);
            charged = guess;
            result = OUT_OF_MEMORY;
        }
    }
    return keep(result, GY_PLAIN, card, charged, result == OK ? *pointer : 0, undo_memory);
}

static CUresult give_back(uint64_t key, enum gy_kind kind, CUresult (*real)(uint64_t)) {
    struct gy_block block;
    bool known = gy_block_take(key, kind, &block);
    CUresult result = real(key);
    if (!known) return result;
    if (result == OK) {
        gy_release(block.card, block.bytes);
        return OK;
    }
    gy_block_keep(&block);
    return result;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    ENTER();
    struct gy_block block;
    if (gy_pools_used && gy_block_take(pointer, GY_POOLED, &block)) { /* allocated in stream order, freed at once */
        CUresult result = REAL(cuMemFree_v2)(pointer);
        if (result != OK) {
            gy_block_keep(&block);
        } else {
            gy_pool_settle(block.owner, block.card);
        }
        return result;
    }
    return give_back(pointer, GY_PLAIN, undo_memory);
}

static uint64_t element_bytes(int format, unsigned channels) {
    uint64_t one = format == 1 || format == 8 ? 1 : format == 2 || format == 9 || format == 0x10 ? 2 : 4;
    bool is_plain = format <= 0x20;
    uint64_t bytes = one * (channels ? channels : 1);
    return is_plain || bytes >= 8 ? bytes : 8; /* a packed format: 8 bytes hold an element of any of them */
}

/* Arrays lie in blocks of 64 bytes by 8 rows; a size is reserved that holds them however they are laid out. */
static uint64_t array_bytes(const struct gy_array3d_descriptor *d, unsigned levels) {
    if (d->flags & (ARRAY_SPARSE | ARRAY_DEFERRED)) return 0; /* memory is mapped into it later, and counted there */
    uint64_t total = 0;
    for (unsigned level = 0; level < (levels ? levels : 1); level++) {
        uint64_t w = d->width >> level, h = d->height >> level, depth = d->depth >> level, bytes;
        w = w ? w : 1, h = h ? h : 1, depth = depth ? depth : 1;
        if (__builtin_mul_overflow(w, element_bytes(d->format, d->channels), &bytes)) return UINT64_MAX;
        bytes = gy_round_up(bytes, 64);
        if (__builtin_mul_overflow(bytes, d->height ? gy_round_up(h, 8) : 1, &bytes)) return UINT64_MAX;
        if (__builtin_mul_overflow(bytes, depth, &bytes) || __builtin_add_overflow(total, bytes, &total)) return UINT64_MAX;
        if (w == 1 && h == 1 && depth == 1) break;
    }
    return gy_round_up(total, GRAIN);
}

EXPORT CUresult cuArray3DCreate_v2(CUhandle *array, const struct gy_array3d_descriptor *descriptor) {
    ENTER();
    int card = -1;
    uint64_t bytes = descriptor == NULL ? 0 : array_bytes(descriptor, 1);
    CUresult result = reserve(&card, bytes);
    if (result != OK) return result;
    result = REAL(cuArray3DCreate_v2)(array, descriptor);
    return keep(result, GY_ARRAY, card, bytes, result == OK ? (uint64_t)*array : 0, undo_array);
}

EXPORT CUresult cuArrayCreate_v2(CUhandle *array, const struct gy_array_descriptor *d) {
    ENTER();
    int card = -1;
    uint64_t bytes = 0;
    if (d != NULL) {
        struct gy_array3d_descriptor full = {d->width, d->height, 0, d->format, d->channels, 0};
        bytes = array_bytes(&full, 1);
    }
    CUresult result = reserve(&card, bytes);
    if (result != OK) return result;
    result = REAL(cuArrayCreate_v2)(array, d);
    return keep(result, GY_ARRAY, card, bytes, result == OK ? (uint64_t)*array : 0, undo_array);
}

EXPORT CUresult cuMipmappedArrayCreate(CUhandle *array, const struct gy_array3d_descriptor *descriptor, unsigned levels) {
    ENTER();
    int card = -1;
    uint64_t bytes = descriptor == NULL ? 0 : array_bytes(descriptor, levels);
    CUresult result = reserve(&card, bytes);
    if (result != OK) return result;
    result = REAL(cuMipmappedArrayCreate)(array, descriptor, levels);
    return keep(result, GY_ARRAY, card, bytes, result == OK ? (uint64_t)*array : 0, undo_mipmaps);
}

EXPORT CUresult cuArrayDestroy(CUhandle array) {
    ENTER();
    return give_back((uint64_t)array, GY_ARRAY, undo_array);
}

EXPORT CUresult cuMipmappedArrayDestroy(CUhandle array) {
    ENTER();
    return give_back((uint64_t)array, GY_ARRAY, undo_mipmaps);
}

/* Memory of another process is opened only where a process of this slice gave it out; it is charged to the one that did. */
struct gy_ipc_handle { uint8_t bytes[64]; };

EXPORT CUresult cuIpcGetMemHandle(struct gy_ipc_handle *handle, CUdeviceptr pointer) {
    ENTER();
    CUresult result = REAL(cuIpcGetMemHandle)(handle, pointer);
    if (result == OK) gy_exported(gy_fnv(handle, sizeof *handle));
    return result;
}

EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pointer, struct gy_ipc_handle handle, unsigned flags) {
    ENTER();
    if (!gy_was_exported(gy_fnv(&handle, sizeof handle))) return NOT_PERMITTED;
    return REAL(cuIpcOpenMemHandle_v2)(pointer, handle, flags);
}

EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *pointer, struct gy_ipc_handle handle, unsigned flags) {
    ENTER();
    if (!gy_was_exported(gy_fnv(&handle, sizeof handle))) return NOT_PERMITTED;
    return REAL(cuIpcOpenMemHandle)(pointer, handle, flags);
}

