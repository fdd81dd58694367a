/* Which card of the slice a device number means, by UUID alone (numbers change with CUDA_VISIBLE_DEVICES), and what a program
 * is told of it: the slice. */
#include "cuda_shim.h"

int8_t gy_cards[GY_DEVICES];

/* Whether MPS, where it must, holds this program to the slice's multiprocessors. Without its daemon a program has all of them. */
static bool is_held(const struct gy_slice_card *card, CUdevice device) {
    enum { MULTIPROCESSORS = 16, MPS_ENABLED = 133 };
    int seen = 0, client = 1; /* stays so where an older driver does not know */
    REAL(cuDeviceGetAttribute)(&client, MPS_ENABLED, device);
    bool told = REAL(cuDeviceGetAttribute)(&seen, MULTIPROCESSORS, device) == OK && seen > 0;
    if (card->multiprocessors == 0 || (told && client && (unsigned)seen <= card->multiprocessors)) return true;
    fprintf(stderr, "gpuyard: CUDA is refused here: MPS does not hold this program to its slice: it sees %d multiprocessors, not %u.\n", seen, card->multiprocessors);
    return false;
}

int gy_find_card(CUdevice device) {
    struct gy_uuid uuid;
    if (device < 0 || device >= GY_DEVICES || gy_cards[device] < 0) return -1;
    CUresult result = REAL(cuDeviceGetUuid_v2)(&uuid, device);
    if (result == NOT_SUPPORTED) result = REAL(cuDeviceGetUuid)(&uuid, device);
    if (result != OK) return -1; /* not remembered: it may be too early */
    int found = -1;
    for (uint32_t i = 0; i < gy_slice.card_count; i++)
        if (!memcmp(uuid.bytes, gy_slice.cards[i].uuid, sizeof uuid.bytes) && is_held(&gy_slice.cards[i], device)) found = (int)i + 1;
    gy_cards[device] = (int8_t)found;
    return found > 0 ? found - 1 : -1;
}

int gy_card_now(void) {
    CUdevice device;
    return REAL(cuCtxGetDevice)(&device) == OK ? gy_card_of_device(device) : -1;
}

CUdevice gy_device_of_card(int card) {
    int count = 0;
    if (REAL(cuDeviceGetCount)(&count) != OK) return -1;
    for (CUdevice device = 0; device < count; device++)
        if (gy_card_of_device(device) == card) return device;
    return -1;
}

OURS(cuMemGetInfo_v2)(size_t *free, size_t *total) {
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

OURS(cuDeviceTotalMem_v2)(size_t *bytes, CUdevice device) {
    CUresult result = REAL(cuDeviceTotalMem_v2)(bytes, device);
    int card = result == OK ? gy_card_of_device(device) : -1;
    if (card >= 0 && *bytes > gy_slice.cards[card].memory_bytes) *bytes = gy_slice.cards[card].memory_bytes;
    return result;
}
