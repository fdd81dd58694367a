/* Device memory: reserve in the ledger, ask the driver, roll back if it refuses. What is freed is given back after the driver
 * has freed it, and leaves the table before, so that an address that is handed out again at once is never confused. */
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
    int found = *card = gy_card_of_device(device);
    return gy_grant(found, bytes);
}

static CUresult keep(CUresult result, enum gy_kind kind, int card, uint64_t bytes, uint64_t key, CUresult (*undo)(uint64_t)) {
    struct gy_block block = {.key = key, .bytes = bytes, .card = (int16_t)card, .kind = (uint8_t)kind};
    if (card >= 0 && result == OK) block.owner = context_now();
    return gy_granted(result, &block, undo);
}

static CUresult free_memory(uint64_t pointer) { return REAL(cuMemFree_v2)(pointer); }
static CUresult free_array(uint64_t array) { return REAL(cuArrayDestroy)((CUhandle)array); }
static CUresult free_mipmaps(uint64_t array) { return REAL(cuMipmappedArrayDestroy)((CUhandle)array); }

#define ALLOCATE(kind, size, made, undo, call) \
    int card;                                  \
    uint64_t charged = size;                   \
    CUresult result = reserve(&card, charged); \
    if (result != OK) return result;           \
    result = call;                             \
    return keep(result, kind, card, charged, result == OK ? (uint64_t)*(made) : 0, undo)

OURS(cuMemAlloc_v2)(CUdeviceptr *pointer, size_t bytes) {
    ALLOCATE(GY_PLAIN, gy_round_up(bytes, GRAIN), pointer, free_memory, REAL(cuMemAlloc_v2)(pointer, bytes));
}

OURS(cuMemAllocManaged)(CUdeviceptr *pointer, size_t bytes, unsigned flags) {
    ALLOCATE(GY_PLAIN, gy_round_up(bytes, GRAIN), pointer, free_memory, REAL(cuMemAllocManaged)(pointer, bytes, flags));
}

/* The driver chooses the pitch: what it is likely to be is reserved first, and the rest when it is known. */
OURS(cuMemAllocPitch_v2)(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned element) {
    int card;
    uint64_t row = gy_round_up(width, GRAIN), charged, whole;
    if (__builtin_mul_overflow(row, (uint64_t)height, &charged)) return OUT_OF_MEMORY;
    CUresult result = reserve(&card, charged);
    if (result != OK) return result;
    result = REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element);
    if (result == OK && card >= 0 && *pitch > row) {
        bool fits = !__builtin_mul_overflow((uint64_t)*pitch, (uint64_t)height, &whole) && gy_reserve(card, whole - charged);
        if (fits) charged = whole;
        else free_memory(*pointer), result = OUT_OF_MEMORY;
    }
    return keep(result, GY_PLAIN, card, charged, result == OK ? *pointer : 0, free_memory);
}

/* Takes it from the table: as memory, also what was allocated in stream order. */
static bool take(uint64_t key, enum gy_kind kind, struct gy_block *block) {
    return (kind == GY_PLAIN && gy_pools_used && gy_block_take(key, GY_POOLED, block)) || gy_block_take(key, kind, block);
}

static CUresult freed(CUresult result, bool known, const struct gy_block *block) {
    if (known && result != OK) gy_block_keep(block);
    else if (known && block->kind == GY_POOLED) gy_pool_settle(block->owner, block->card);
    else if (known) gy_release(block->card, block->bytes);
    return result;
}

#define FREE(name, per_thread, kind, parameters, ...)                        \
    OURS(name) parameters {                                                  \
        struct gy_block block;                                               \
        bool known = take((uint64_t)HANDLE_OF(__VA_ARGS__, ), kind, &block); \
        return freed(REAL(name)(__VA_ARGS__), known, &block);                \
    }
#define HANDLE_OF(first, ...) first
GY_EACH_FREE(FREE)

static uint64_t element_bytes(int format, unsigned channels) {
    uint64_t one = format == 1 || format == 8 ? 1 : format == 2 || format == 9 || format == 0x10 ? 2 : 4;
    bool is_plain = format <= 0x20;
    uint64_t bytes = one * (channels ? channels : 1);
    return is_plain || bytes >= 8 ? bytes : 8; /* a packed format: 8 bytes hold an element of any of them */
}

/* Arrays lie in blocks of 64 bytes by 8 rows; a size is reserved that holds them however they are laid out. */
static uint64_t array_bytes(const struct gy_array3d_descriptor *d, unsigned levels) {
    if (d == NULL || d->flags & (ARRAY_SPARSE | ARRAY_DEFERRED)) return 0; /* memory is mapped into it later, and counted there */
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

OURS(cuArray3DCreate_v2)(CUhandle *array, const struct gy_array3d_descriptor *descriptor) {
    ALLOCATE(GY_ARRAY, array_bytes(descriptor, 1), array, free_array, REAL(cuArray3DCreate_v2)(array, descriptor));
}

OURS(cuArrayCreate_v2)(CUhandle *array, const struct gy_array_descriptor *d) {
    struct gy_array3d_descriptor full = {0};
    if (d != NULL) full = (struct gy_array3d_descriptor){d->width, d->height, 0, d->format, d->channels, 0};
    ALLOCATE(GY_ARRAY, array_bytes(d ? &full : NULL, 1), array, free_array, REAL(cuArrayCreate_v2)(array, d));
}

OURS(cuMipmappedArrayCreate)(CUhandle *array, const struct gy_array3d_descriptor *descriptor, unsigned levels) {
    ALLOCATE(GY_ARRAY, array_bytes(descriptor, levels), array, free_mipmaps, REAL(cuMipmappedArrayCreate)(array, descriptor, levels));
}

/* Memory of another process is opened only where a process of this slice gave it out; it is charged to the one that did. */
OURS(cuIpcGetMemHandle)(struct gy_ipc_handle *handle, CUdeviceptr pointer) {
    CUresult result = REAL(cuIpcGetMemHandle)(handle, pointer);
    if (result == OK) gy_was_exported(gy_fnv(handle, sizeof *handle), true);
    return result;
}

#define IPC(name, per_thread, extra, parameters, ...)                                      \
    OURS(name) parameters {                                                                \
        if (!gy_was_exported(gy_fnv(&handle, sizeof handle), false)) return NOT_PERMITTED; \
        return REAL(name)(__VA_ARGS__);                                                    \
    }
GY_EACH_IPC(IPC)
