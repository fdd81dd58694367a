/* What a program is told of its card: the slice. Free memory is never more than total, and neither is below zero. */
#include "cuda_shim.h"

EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER();
    size_t real_free = 0, real_total = 0;
    CUresult result = REAL(cuMemGetInfo_v2)(&real_free, &real_total);
    if (result != OK) return result;
    int card = gy_card_now();
    if (card >= 0) {
        gy_pools_settle(card);
        gy_mask(card, &real_total, &real_free);
    }
    if (free != NULL) *free = real_free;
    if (total != NULL) *total = real_total;
    return OK;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER();
    CUresult result = REAL(cuDeviceTotalMem_v2)(bytes, device);
    int card = result == OK ? gy_card_of_device(device) : -1;
    if (card >= 0 && *bytes > gy_slice.cards[card].memory_bytes) *bytes = gy_slice.cards[card].memory_bytes;
    return result;
}
