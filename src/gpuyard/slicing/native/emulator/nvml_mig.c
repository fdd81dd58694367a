/* MIG: how a card can be cut, where each kind of GPU instance may lie, and the instances that were made. */
#include "nvml_state.h"
#include <stdio.h>
#include <string.h>

typedef struct gy_emulator_profile profile;
typedef struct { unsigned start, size; } placement;
typedef struct { unsigned id, p2p, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas; uint64_t memory_mib; } profile_v1;
typedef struct { unsigned version, id, p2p, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas;
                 uint64_t memory_mib; char name[96]; } profile_v2;
typedef struct { device_handle device; unsigned id, profile; placement where; } instance_information;

static const profile *by_id(device_handle device, unsigned id) {
    for (uint32_t i = 0; i < device->mig_profiles; i++)
        if (device->profiles[i].id == id) return &device->profiles[i];
    return NULL;
}

static profile_v2 describe(const profile *p) {
    profile_v2 answer = {.id = p->id, .slices = p->slices, .instances = p->most, .sms = p->multiprocessors,
                         .copy_engines = p->copy_engines, .decoders = p->decoders, .jpegs = p->jpegs, .ofas = p->ofas,
                         .memory_mib = p->memory_mib};
    snprintf(answer.name, sizeof answer.name, "MIG %s", p->name);
    return answer;
}

GY_API nvmlReturn nvmlDeviceGetMigMode(device_handle device, unsigned *current, unsigned *pending) {
    ON_DEVICE;
    REFUSE_IF(!current || !pending, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_profiles, NOT_SUPPORTED);
    *current = *pending = device->mig_mode;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceSetMigMode(device_handle device, unsigned mode, nvmlReturn *activated) {
    ON_DEVICE;
    REFUSE_IF(mode > 1 || !activated, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_profiles, NOT_SUPPORTED);
    gy_reap();
    *activated = device->used ? IN_USE : SUCCESS; /* the mode changes when nobody has a context any more */
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        if (device->instances[i].in_use && !mode) *activated = IN_USE;
    if (!*activated) device->mig_mode = mode;
    OUT(SUCCESS);
}

static nvmlReturn by_index(const char *function, device_handle device, unsigned index, profile_v2 *answer) {
    TRY(nv_enter_device(function, device));
    REFUSE_IF(index > 16, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_profiles, NOT_SUPPORTED);
    for (uint32_t i = 0; i < device->mig_profiles; i++) {
        if (device->profiles[i].index != index) continue;
        *answer = describe(&device->profiles[i]);
        OUT(SUCCESS);
    }
    OUT(NOT_SUPPORTED);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceProfileInfo(device_handle device, unsigned index, profile_v1 *answer) {
    profile_v2 found;
    if (!answer) return INVALID_ARGUMENT;
    TRY(by_index(__func__, device, index, &found));
    *answer = (profile_v1){found.id, 0, found.slices, found.instances, found.sms, found.copy_engines, found.decoders, 0,
                           found.jpegs, found.ofas, found.memory_mib};
    return SUCCESS;
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceProfileInfoV(device_handle device, unsigned index, profile_v2 *answer) {
    profile_v2 found;
    if (!answer) return INVALID_ARGUMENT;
    if (answer->version != (sizeof *answer | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    TRY(by_index(__func__, device, index, &found));
    found.version = answer->version;
    *answer = found;
    return SUCCESS;
}

static bool is_free(device_handle device, unsigned start, unsigned size) {
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++) {
        const struct gy_emulator_instance *other = &device->instances[i];
        if (other->in_use && other->start < start + size && start < other->start + other->size) return false;
    }
    return true;
}

/* How many compute slices are left: memory has eight, compute seven. */
static unsigned slices_left(device_handle device) {
    unsigned taken = 0;
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        if (device->instances[i].in_use) taken += device->instances[i].slices;
    return GY_MIG_SLICES - taken;
}

static unsigned made_of(device_handle device, const profile *p) {
    unsigned count = 0;
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        count += device->instances[i].in_use && device->instances[i].profile == p->id;
    return count;
}

GY_API nvmlReturn nvmlDeviceGetGpuInstancePossiblePlacements_v2(device_handle device, unsigned id, placement *answer, unsigned *count) {
    ON_DEVICE;
    const profile *p = by_id(device, id);
    REFUSE_IF(!p || !count, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_profiles, NOT_SUPPORTED);
    REFUSE_IF(answer && *count < p->places, INSUFFICIENT_SIZE);
    for (unsigned i = 0; answer && i < p->places; i++) answer[i] = (placement){i * p->step, p->size};
    *count = p->places;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceRemainingCapacity(device_handle device, unsigned id, unsigned *count) {
    ON_DEVICE;
    const profile *p = by_id(device, id);
    REFUSE_IF(!p || !count, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    unsigned room = p->most - made_of(device, p), places = 0, slices = slices_left(device) / p->slices;
    for (unsigned i = 0; i < p->places; i++) places += is_free(device, i * p->step, p->size);
    *count = places < room ? places : room;
    if (slices < *count) *count = slices;
    OUT(SUCCESS);
}

static nvmlReturn create(const char *function, device_handle device, unsigned id, const placement *where, instance_handle *answer) {
    TRY(nv_enter_device(function, device));
    const profile *p = by_id(device, id);
    REFUSE_IF(!p || !answer, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    REFUSE_IF(where && (where->size != p->size || where->start % p->step || where->start / p->step >= p->places), INVALID_ARGUMENT);
    REFUSE_IF(made_of(device, p) >= p->most || slices_left(device) < p->slices, INSUFFICIENT_RESOURCES);
    for (unsigned i = 0; i < p->places; i++) {
        unsigned start = where ? where->start : i * p->step;
        if (!is_free(device, start, p->size)) continue;
        for (uint32_t slot = 0; slot < GY_EMULATOR_INSTANCES; slot++) {
            if (device->instances[slot].in_use) continue;
            device->instances[slot] = (gy_instance){
                .in_use = 1, .profile = id, .start = start, .size = p->size, .made = device->instances[slot].made + 1,
                .slices = p->slices, .multiprocessors = p->multiprocessors, .total = p->memory_mib << 20};
            *answer = &device->instances[slot];
            OUT(SUCCESS);
        }
    }
    OUT(INSUFFICIENT_RESOURCES);
}

GY_API nvmlReturn nvmlDeviceCreateGpuInstance(device_handle d, unsigned id, instance_handle *a) { return create(__func__, d, id, NULL, a); }
GY_API nvmlReturn nvmlDeviceCreateGpuInstanceWithPlacement(device_handle d, unsigned id, const placement *where, instance_handle *a) {
    return where ? create(__func__, d, id, where, a) : INVALID_ARGUMENT;
}

device_handle nv_card_of(instance_handle instance, uint32_t *place) {
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        for (*place = 1; *place <= GY_EMULATOR_INSTANCES; (*place)++)
            if (instance == &gy_here->cards[i].instances[*place - 1] && instance->in_use) return &gy_here->cards[i];
    return NULL;
}

GY_API nvmlReturn nvmlGpuInstanceDestroy(instance_handle instance) {
    uint32_t place;
    TRY(nv_enter(__func__));
    REFUSE_IF(!nv_card_of(instance, &place), INVALID_ARGUMENT);
    REFUSE_IF(instance->computes, IN_USE);
    *instance = (gy_instance){.made = instance->made};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceGetInfo(instance_handle instance, instance_information *answer) {
    uint32_t place;
    TRY(nv_enter(__func__));
    device_handle device = nv_card_of(instance, &place);
    REFUSE_IF(!device || !answer, INVALID_ARGUMENT);
    *answer = (instance_information){device, place, instance->profile, {instance->start, instance->size}};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstances(device_handle device, unsigned id, instance_handle *answer, unsigned *count) {
    ON_DEVICE;
    REFUSE_IF(!by_id(device, id) || !answer || !count, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    *count = 0;
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        if (device->instances[i].in_use && device->instances[i].profile == id) answer[(*count)++] = &device->instances[i];
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceById(device_handle device, unsigned id, instance_handle *answer) {
    ON_DEVICE;
    REFUSE_IF(!answer || !id || id > GY_EMULATOR_INSTANCES, INVALID_ARGUMENT);
    REFUSE_IF(!device->instances[id - 1].in_use, NOT_FOUND);
    *answer = &device->instances[id - 1];
    OUT(SUCCESS);
}
