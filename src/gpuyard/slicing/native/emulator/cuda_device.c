/* What cards there are, and what they are. */
#include "cuda_state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gy_card *card_of(CUdevice device) {
    return device >= 0 && device < gy_visible_count ? &gy_here->cards[gy_visible[device]] : NULL;
}

int gy_device_number(uint32_t card) {
    for (int i = 0; i < gy_visible_count; i++)
        if (gy_visible[i] == card) return i;
    return -1;
}

#define OF_DEVICE(pointer) \
    IN; \
    const gy_card *card = card_of(device); \
    REFUSE_IF(!(pointer), INVALID_VALUE); \
    REFUSE_IF(!card, INVALID_DEVICE)

GY_API CUresult cuDriverGetVersion(int *version) {
    if (!version) return INVALID_VALUE;
    *version = gy_open() ? (int)gy_here->cuda_version : 13000;
    return CUDA_SUCCESS;
}

GY_API CUresult cuDeviceGetCount(int *count) {
    IN;
    REFUSE_IF(!count, INVALID_VALUE);
    *count = gy_visible_count;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGet(CUdevice *answer, int device) {
    OF_DEVICE(answer);
    *answer = device;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    OF_DEVICE(name);
    REFUSE_IF(length <= 0, INVALID_VALUE);
    const gy_instance *instance = gy_mig_here(gy_visible[device]);
    char as[sizeof card->name + 40];
    if (instance) gy_mig_name(card, instance, as, sizeof as);
    snprintf(name, (size_t)length, "%s", instance ? as : card->name);
    OUT(CUDA_SUCCESS);
}

/* The older call names the card, the newer one the instance. */
static CUresult uuid(const char *function, CUuuid *answer, CUdevice device, bool instances) {
    TRY(gy_enter(function));
    REFUSE_IF(!answer, INVALID_VALUE);
    REFUSE_IF(!card_of(device), INVALID_DEVICE);
    const gy_instance *instance = instances ? gy_mig_here(gy_visible[device]) : NULL;
    memcpy(answer->bytes, instance ? instance->uuid : card_of(device)->uuid, 16);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetUuid(CUuuid *answer, CUdevice device) { return uuid(__func__, answer, device, false); }
GY_API CUresult cuDeviceGetUuid_v2(CUuuid *answer, CUdevice device) { return uuid(__func__, answer, device, true); }

GY_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    OF_DEVICE(bytes);
    *bytes = gy_total(gy_visible[device]);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device) {
    OF_DEVICE(bytes);
    uint64_t total = gy_total(gy_visible[device]);
    *bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    OF_DEVICE(major && minor);
    *major = (int)card->major;
    *minor = (int)card->minor;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice device) {
    OF_DEVICE(text);
    REFUSE_IF(length < 13, INVALID_VALUE);
    snprintf(text, (size_t)length, "%04x:%02x:00.0", card->pci_domain, card->pci_bus);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text) {
    IN;
    unsigned domain = 0, bus = 0, slot = 0;
    REFUSE_IF(!device || !text, INVALID_VALUE);
    REFUSE_IF(sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3 && (domain = 0, sscanf(text, "%x:%x", &bus, &slot) != 2),
              INVALID_VALUE);
    for (int i = 0; i < gy_visible_count; i++) {
        const gy_card *card = card_of(i);
        if (card->pci_domain != domain || card->pci_bus != bus || slot) continue;
        *device = i;
        OUT(CUDA_SUCCESS);
    }
    OUT(INVALID_DEVICE);
}

/* The attributes by their number in the driver API; the others are 0, as on a card without the feature. */
static int attribute(const gy_card *card, int which) {
    switch (which) {
    case 1: case 2: case 3: return which == 3 ? 64 : 1024;  /* block */
    case 5: return 2147483647;                              /* grid */
    case 6: case 7: return 65535;
    case 8: return 49152;                                   /* shared memory per block */
    case 9: return 65536;                                   /* constant memory */
    case 10: return 32;                                     /* warp */
    case 11: return 2147483647;                             /* pitch */
    case 12: return 65536;                                  /* registers per block */
    case 13: return (int)card->boost_mhz * 1000;
    case 14: return 512;                                    /* texture alignment */
    case 15: case 31: case 32: case 40: case 41: return 1;  /* overlap, concurrent kernels, addressing */
    case 16: return (int)gy_multiprocessors((uint32_t)(card - gy_here->cards));
    case 19: case 78: case 89: return 1;                    /* host mapping, stream priorities, managed access */
    case 20: return (int)card->compute_mode;
    case 33: return (int)card->pci_bus;
    case 34: return 0;
    case 36: return (int)card->memory_mhz * 1000;
    case 37: return (int)card->bus_width_bits;
    case 38: return (int)card->l2_bytes;
    case 39: return card->major == 8 && card->minor == 9 ? 1536 : 2048; /* threads per multiprocessor */
    case 50: return (int)card->pci_domain;
    case 75: return (int)card->major;
    case 76: return (int)card->minor;
    case 79: case 80: case 82: case 83: case 95: case 96: return 1; /* caches, registers, managed, cooperative launch */
    case 81: return (int)card->multiprocessors * 1024;
    case 97: return 101376;                                 /* shared memory per block, on request */
    case 102: case 103: case 115: case 119: return 1;       /* VMM, handles by descriptor, pools */
    case 106: return card->major >= 9 ? 32 : 24;            /* blocks per multiprocessor */
    case 133: return gy_mps_is_client();                   /* MPS */
    case 121: return 1;                                     /* handle types of pools */
    default: return 0;
    }
}

GY_API CUresult cuDeviceGetAttribute(int *value, int which, CUdevice device) {
    OF_DEVICE(value);
    REFUSE_IF(which <= 0 || which > 200, INVALID_VALUE);
    *value = attribute(card, which);
    OUT(CUDA_SUCCESS);
}

struct properties { int threads, block[3], grid[3], shared, constant, warp, pitch, registers, clock, alignment; };

GY_API CUresult cuDeviceGetProperties(struct properties *answer, CUdevice device) {
    OF_DEVICE(answer);
    *answer = (struct properties){1024, {1024, 1024, 64}, {2147483647, 65535, 65535}, 49152, 65536, 32, 2147483647, 65536,
                                  (int)card->boost_mhz * 1000, 512};
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    OF_DEVICE(can);
    REFUSE_IF(!card_of(peer), INVALID_DEVICE);
    *can = device != peer && !card->consumer && !card_of(peer)->consumer;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetP2PAttribute(int *value, int which, CUdevice device, CUdevice peer) {
    OF_DEVICE(value);
    REFUSE_IF(!card_of(peer) || device == peer, INVALID_DEVICE);
    REFUSE_IF(which < 1 || which > 5, INVALID_VALUE);
    *value = 0;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGetLuid(char *luid, unsigned *mask, CUdevice device) {
    (void)luid, (void)mask, (void)device; /* only on Windows */
    return NOT_SUPPORTED;
}
