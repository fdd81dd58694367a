/* MIG: the GPU instance profiles of the cards that have it, where each may lie, and the instances that were made. Numbers are
 * those of NVIDIA's MIG user guide for the A100 and H100; memory on a card that it does not list is an eighth per slice. */
#include "nvml_state.h"
#include <stdio.h>
#include <string.h>

struct profile {
    unsigned index, id, slices, instances, size, placements, step, memory_eighths, memory_40, memory_80;
    unsigned sm_a100, sm_h100, copy_engines, decoders, jpegs, ofas;
    const char *suffix;
};
static const struct profile profiles[] = {
    {0, 19, 1, 7, 1, 7, 1, 1, 4864, 9728, 14, 16, 1, 0, 0, 0, ""},
    {1, 14, 2, 3, 2, 3, 2, 2, 9856, 19968, 28, 32, 2, 1, 0, 0, ""},
    {2, 9, 3, 2, 4, 2, 4, 4, 19968, 40192, 42, 60, 3, 2, 0, 0, ""},
    {3, 5, 4, 1, 4, 1, 4, 4, 19968, 40192, 56, 64, 4, 2, 0, 0, ""},
    {4, 0, 7, 1, 8, 1, 8, 8, 40192, 81152, 98, 132, 7, 5, 1, 1, ""},
    {7, 20, 1, 1, 1, 7, 1, 1, 4864, 9728, 14, 16, 1, 1, 1, 1, "+me"},
    {9, 15, 1, 4, 2, 4, 2, 2, 9856, 19968, 14, 26, 1, 1, 0, 0, ""},
};
#define PROFILES (sizeof profiles / sizeof *profiles)

typedef struct { unsigned start, size; } placement;
typedef struct { unsigned id, p2p, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas; uint64_t memory_mib; } profile_v1;
typedef struct { unsigned version, id, p2p, slices, instances, sms, copy_engines, decoders, encoders, jpegs, ofas;
                 uint64_t memory_mib; char name[96]; } profile_v2;
typedef struct { device_handle device; unsigned id, profile; placement where; } instance_information;

static const struct profile *by_id(unsigned id) {
    for (size_t i = 0; i < PROFILES; i++)
        if (profiles[i].id == id) return &profiles[i];
    return NULL;
}

static uint64_t memory_of(device_handle device, const struct profile *p) {
    if (device->mig_memory_gib == 40) return p->memory_40;
    if (device->mig_memory_gib == 80) return p->memory_80;
    return (device->total >> 20) * p->memory_eighths / 8;
}

static profile_v2 describe(device_handle device, const struct profile *p) {
    profile_v2 answer = {.id = p->id, .slices = p->slices, .instances = p->instances, .copy_engines = p->copy_engines,
                         .decoders = p->decoders, .jpegs = p->jpegs, .ofas = p->ofas, .memory_mib = memory_of(device, p)};
    answer.sms = device->major >= 9 ? p->sm_h100 : p->sm_a100;
    unsigned gib = (device->mig_memory_gib * p->memory_eighths + 4) / 8;
    snprintf(answer.name, sizeof answer.name, "MIG %ug.%ugb%s", p->slices, gib, p->suffix);
    return answer;
}

GY_API nvmlReturn nvmlDeviceGetMigMode(device_handle device, unsigned *current, unsigned *pending) {
    ON_DEVICE;
    REFUSE_IF(!current || !pending, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_memory_gib, NOT_SUPPORTED);
    *current = *pending = device->mig_mode;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceSetMigMode(device_handle device, unsigned mode, nvmlReturn *activated) {
    ON_DEVICE;
    REFUSE_IF(mode > 1 || !activated, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_memory_gib, NOT_SUPPORTED);
    gy_reap();
    *activated = device->used ? IN_USE : SUCCESS; /* the mode changes when nobody has a context any more */
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        if (device->instances[i].in_use && !mode) *activated = IN_USE;
    if (!*activated) device->mig_mode = mode;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetMaxMigDeviceCount(device_handle device, unsigned *count) {
    ON_DEVICE;
    REFUSE_IF(!count, INVALID_ARGUMENT);
    *count = device->mig_memory_gib ? 7 : 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceIsMigDeviceHandle(device_handle device, unsigned *answer) {
    ON_DEVICE;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    *answer = 0;
    OUT(SUCCESS);
}

static nvmlReturn profile(const char *function, device_handle device, unsigned index, profile_v2 *answer) {
    TRY(nv_enter_device(function, device));
    REFUSE_IF(index > 16, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_memory_gib, NOT_SUPPORTED);
    for (size_t i = 0; i < PROFILES; i++) {
        if (profiles[i].index != index) continue;
        *answer = describe(device, &profiles[i]);
        OUT(SUCCESS);
    }
    OUT(NOT_SUPPORTED);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceProfileInfo(device_handle device, unsigned index, profile_v1 *answer) {
    profile_v2 found;
    if (!answer) return INVALID_ARGUMENT;
    TRY(profile(__func__, device, index, &found));
    *answer = (profile_v1){found.id, 0, found.slices, found.instances, found.sms, found.copy_engines, found.decoders, 0,
                           found.jpegs, found.ofas, found.memory_mib};
    return SUCCESS;
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceProfileInfoV(device_handle device, unsigned index, profile_v2 *answer) {
    profile_v2 found;
    if (!answer) return INVALID_ARGUMENT;
    if (answer->version != (sizeof *answer | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    TRY(profile(__func__, device, index, &found));
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
        if (device->instances[i].in_use) taken += by_id(device->instances[i].profile)->slices;
    return 7 - taken;
}

static unsigned made_of(device_handle device, const struct profile *p) {
    unsigned count = 0;
    for (uint32_t i = 0; i < GY_EMULATOR_INSTANCES; i++)
        count += device->instances[i].in_use && device->instances[i].profile == p->id;
    return count;
}

GY_API nvmlReturn nvmlDeviceGetGpuInstancePossiblePlacements_v2(device_handle device, unsigned id, placement *answer, unsigned *count) {
    ON_DEVICE;
    const struct profile *p = by_id(id);
    REFUSE_IF(!p || !count, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_memory_gib, NOT_SUPPORTED);
    REFUSE_IF(answer && *count < p->placements, INSUFFICIENT_SIZE);
    for (unsigned i = 0; answer && i < p->placements; i++) answer[i] = (placement){i * p->step, p->size};
    *count = p->placements;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstanceRemainingCapacity(device_handle device, unsigned id, unsigned *count) {
    ON_DEVICE;
    const struct profile *p = by_id(id);
    REFUSE_IF(!p || !count, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    unsigned room = p->instances - made_of(device, p), places = 0, slices = slices_left(device) / p->slices;
    for (unsigned i = 0; i < p->placements; i++) places += is_free(device, i * p->step, p->size);
    *count = places < room ? places : room;
    if (slices < *count) *count = slices;
    OUT(SUCCESS);
}

static nvmlReturn create(const char *function, device_handle device, unsigned id, const placement *where, instance_handle *answer) {
    TRY(nv_enter_device(function, device));
    const struct profile *p = by_id(id);
    REFUSE_IF(!p || !answer, INVALID_ARGUMENT);
    REFUSE_IF(!device->mig_mode, NOT_SUPPORTED);
    REFUSE_IF(where && (where->size != p->size || where->start % p->step || where->start / p->step >= p->placements), INVALID_ARGUMENT);
    REFUSE_IF(made_of(device, p) >= p->instances || slices_left(device) < p->slices, INSUFFICIENT_RESOURCES);
    for (unsigned i = 0; i < p->placements; i++) {
        unsigned start = where ? where->start : i * p->step;
        if (!is_free(device, start, p->size)) continue;
        for (uint32_t slot = 0; slot < GY_EMULATOR_INSTANCES; slot++) {
            if (device->instances[slot].in_use) continue;
            device->instances[slot] = (struct gy_emulator_instance){1, id, start, p->size};
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

static device_handle device_of(instance_handle instance, uint32_t *number) {
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        for (*number = 0; *number < GY_EMULATOR_INSTANCES; (*number)++)
            if (instance == &gy_here->cards[i].instances[*number] && instance->in_use) return &gy_here->cards[i];
    return NULL;
}

GY_API nvmlReturn nvmlGpuInstanceDestroy(instance_handle instance) {
    uint32_t number;
    TRY(nv_enter(__func__));
    REFUSE_IF(!device_of(instance, &number), INVALID_ARGUMENT);
    memset(instance, 0, sizeof *instance);
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlGpuInstanceGetInfo(instance_handle instance, instance_information *answer) {
    uint32_t number;
    TRY(nv_enter(__func__));
    device_handle device = device_of(instance, &number);
    REFUSE_IF(!device || !answer, INVALID_ARGUMENT);
    *answer = (instance_information){device, number + 1, instance->profile, {instance->start, instance->size}};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGpuInstances(device_handle device, unsigned id, instance_handle *answer, unsigned *count) {
    ON_DEVICE;
    REFUSE_IF(!by_id(id) || !answer || !count, INVALID_ARGUMENT);
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
