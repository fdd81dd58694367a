/* MIG: compute instances, and the devices that programs see of them. A GPU instance has one compute instance here, with all
 * of its slices; its handle, the GPU instance's and the device's are all that instance. */
#include "nvml_state.h"
#include <string.h>

typedef struct { unsigned start, size; } placement;
typedef struct { unsigned id, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas; } profile_v1;
typedef struct { unsigned version, id, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas; char name[96]; } profile_v2;
typedef struct { device_handle device; instance_handle instance; unsigned id, profile; placement where; } compute_information;
typedef struct { unsigned sms, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices; uint64_t memory_mib; } attributes;

/* By their number in NVML, how many slices a kind of compute instance has. */
static const unsigned slices_by_index[] = {1, 2, 3, 4, 7};
enum { INDEXES = sizeof slices_by_index / sizeof *slices_by_index };

instance_handle nv_mig_device(const void *device) {
    uint32_t place;
    instance_handle instance = (instance_handle)(uintptr_t)device;
    return device && nv_card_of(instance, &place) && instance->computes ? instance : NULL;
}

#define IN_INSTANCE \
    uint32_t place; \
    TRY(nv_enter(__func__)); \
    device_handle device = nv_card_of(instance, &place); \
    REFUSE_IF(!device, INVALID_ARGUMENT); \
    (void)device

static nvmlReturn whole(instance_handle instance, unsigned index, unsigned engines, unsigned *id) {
    if (index > 8 || engines) return INVALID_ARGUMENT;
    if (index >= INDEXES || slices_by_index[index] != instance->slices) return NOT_SUPPORTED;
    *id = index;
    return SUCCESS;
}

GY_API nvmlReturn nvmlGpuInstanceGetComputeInstanceProfileInfo(instance_handle instance, unsigned index, unsigned engines,
                                                               profile_v1 *answer) {
    IN_INSTANCE;
    unsigned id;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    nvmlReturn result = whole(instance, index, engines, &id);
    REFUSE_IF(result, result);
    *answer = (profile_v1){.id = id, .slices = instance->slices, .instances = 1, .sms = instance->multiprocessors};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance_handle instance, unsigned index, unsigned engines,
                                                                profile_v2 *answer) {
    IN_INSTANCE;
    unsigned id;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    REFUSE_IF(answer->version != (sizeof *answer | 2u << 24), ARGUMENT_VERSION_MISMATCH);
    nvmlReturn result = whole(instance, index, engines, &id);
    REFUSE_IF(result, result);
    *answer = (profile_v2){.version = answer->version, .id = id, .slices = instance->slices, .instances = 1,
                           .sms = instance->multiprocessors};
    gy_mig_name(device, instance, answer->name, sizeof answer->name);
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceCreateComputeInstance(instance_handle instance, unsigned id, instance_handle *answer) {
    IN_INSTANCE;
    REFUSE_IF(!answer || id >= INDEXES, INVALID_ARGUMENT);
    REFUSE_IF(slices_by_index[id] != instance->slices, NOT_SUPPORTED);
    REFUSE_IF(instance->computes, INSUFFICIENT_RESOURCES);
    /* The same cut of the same card has the same name again. */
    memcpy(instance->uuid, device->uuid, sizeof instance->uuid);
    instance->uuid[13] ^= (uint8_t)(instance->profile + 1);
    instance->uuid[14] ^= (uint8_t)(instance->start + 1);
    instance->uuid[15] ^= (uint8_t)place;
    instance->computes = 1;
    *answer = instance;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlComputeInstanceDestroy(instance_handle instance) {
    IN_INSTANCE;
    REFUSE_IF(!instance->computes, INVALID_ARGUMENT);
    gy_reap();
    REFUSE_IF(gy_mig_busy((uint32_t)(device - gy_here->cards), place), IN_USE);
    instance->computes = 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceGetComputeInstances(instance_handle instance, unsigned id, instance_handle *answer, unsigned *count) {
    IN_INSTANCE;
    REFUSE_IF(!answer || !count || id >= INDEXES, INVALID_ARGUMENT);
    *count = instance->computes && slices_by_index[id] == instance->slices;
    if (*count) answer[0] = instance;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceGetComputeInstanceById(instance_handle instance, unsigned id, instance_handle *answer) {
    IN_INSTANCE;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    REFUSE_IF(!instance->computes || id, NOT_FOUND);
    *answer = instance;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlComputeInstanceGetInfo_v2(instance_handle instance, compute_information *answer) {
    IN_INSTANCE;
    unsigned id = 0;
    REFUSE_IF(!answer || !instance->computes, INVALID_ARGUMENT);
    while (slices_by_index[id] != instance->slices) id++;
    *answer = (compute_information){device, instance, 0, id, {0, instance->slices}};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetMaxMigDeviceCount(device_handle device, unsigned *count) {
    ON_DEVICE;
    REFUSE_IF(!count, INVALID_ARGUMENT);
    *count = device->mig_profiles ? GY_MIG_SLICES : 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetMigDeviceHandleByIndex(device_handle device, unsigned index, instance_handle *answer) {
    ON_DEVICE;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++) {
        if (!device->instances[i].in_use || !device->instances[i].computes || index--) continue;
        *answer = &device->instances[i];
        OUT(SUCCESS);
    }
    OUT(NOT_FOUND);
}

GY_API nvmlReturn nvmlDeviceIsMigDeviceHandle(const void *device, unsigned *answer) {
    TRY(nv_enter(__func__));
    REFUSE_IF(!answer || (!nv_is_device(device) && !nv_mig_device(device)), INVALID_ARGUMENT);
    *answer = nv_mig_device(device) != NULL;
    OUT(SUCCESS);
}

/* Begins a call that is for MIG devices alone. */
#define ON_MIG_DEVICE \
    TRY(nv_enter(__func__)); \
    uint32_t place = 0; \
    REFUSE_IF(nv_is_device(instance), NOT_SUPPORTED); \
    REFUSE_IF(!nv_mig_device(instance) || !answer, INVALID_ARGUMENT); \
    device_handle device = nv_card_of(instance, &place); \
    (void)device

GY_API nvmlReturn nvmlDeviceGetGpuInstanceId(instance_handle instance, unsigned *answer) {
    ON_MIG_DEVICE;
    *answer = place;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetComputeInstanceId(instance_handle instance, unsigned *answer) {
    ON_MIG_DEVICE;
    *answer = 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance_handle instance, device_handle *answer) {
    ON_MIG_DEVICE;
    *answer = device;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetAttributes_v2(instance_handle instance, attributes *answer) {
    ON_MIG_DEVICE;
    *answer = (attributes){.sms = instance->multiprocessors, .gpu_slices = instance->slices, .compute_slices = instance->slices,
                           .memory_mib = instance->total >> 20};
    OUT(SUCCESS);
}
