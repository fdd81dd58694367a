/* What a card is, how it is, and what can be set on it. */
#include "nvml_state.h"
#include <stdio.h>
#include <string.h>

void nv_uuid(const gy_card *card, char text[41]);

static nvmlReturn say(char *text, unsigned length, const char *value) {
    if (!text) return INVALID_ARGUMENT;
    if (length <= strlen(value)) return INSUFFICIENT_SIZE;
    strcpy(text, value);
    return SUCCESS;
}

/* Begins a call on a card, or on a MIG device: then `instance` is that, and `device` becomes its card. */
#define ON_EITHER \
    instance_handle instance; \
    TRY(nv_enter_either(__func__, &device, &instance))

static unsigned number_of(device_handle device) { return (unsigned)(device - gy_here->cards); }

GY_API nvmlReturn nvmlDeviceGetName(device_handle device, char *text, unsigned length) {
    char name[sizeof device->name + 40];
    ON_EITHER;
    if (instance) gy_mig_name(device, instance, name, sizeof name);
    OUT(say(text, length, instance ? name : device->name));
}

GY_API nvmlReturn nvmlDeviceGetUUID(device_handle device, char *text, unsigned length) {
    char uuid[41];
    ON_EITHER;
    if (instance) gy_mig_uuid(instance, uuid);
    else nv_uuid(device, uuid);
    OUT(say(text, length, uuid));
}

GY_API nvmlReturn nvmlDeviceGetSerial(device_handle device, char *text, unsigned length) {
    char serial[24];
    ON_DEVICE;
    REFUSE_IF(device->consumer, NOT_SUPPORTED);
    snprintf(serial, sizeof serial, "13205%08u", device->uuid[0] << 16 | device->uuid[1] << 8 | device->uuid[2]);
    OUT(say(text, length, serial));
}

GY_API nvmlReturn nvmlDeviceGetVbiosVersion(device_handle device, char *text, unsigned length) {
    ON_DEVICE;
    OUT(say(text, length, "95.02.3C.00.01"));
}

static nvmlReturn pci(const char *function, device_handle device, pci_information *answer) {
    TRY(nv_enter_device(function, device));
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    memset(answer, 0, sizeof *answer);
    snprintf(answer->legacy, sizeof answer->legacy, "%04X:%02X:00.0", device->pci_domain & 0xffff, device->pci_bus & 0xff);
    snprintf(answer->bus_id, sizeof answer->bus_id, "%08X:%02X:00.0", device->pci_domain, device->pci_bus);
    answer->domain = device->pci_domain;
    answer->bus = device->pci_bus;
    answer->device_id = device->pci_device_id;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetPciInfo(device_handle d, pci_information *a) { return pci(__func__, d, a); }
GY_API nvmlReturn nvmlDeviceGetPciInfo_v2(device_handle d, pci_information *a) { return pci(__func__, d, a); }
GY_API nvmlReturn nvmlDeviceGetPciInfo_v3(device_handle d, pci_information *a) { return pci(__func__, d, a); }

GY_API nvmlReturn nvmlDeviceGetMemoryInfo(device_handle device, memory_v1 *answer) {
    ON_EITHER;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    gy_reap();
    uint64_t total = instance ? instance->total : device->total, used = instance ? instance->used : device->used;
    *answer = (memory_v1){total, total - used, used};
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetMemoryInfo_v2(device_handle device, memory_v2 *answer) {
    ON_EITHER;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    REFUSE_IF(answer->version != (sizeof *answer | 2u << 24), ARGUMENT_VERSION_MISMATCH);
    gy_reap();
    uint64_t total = instance ? instance->total : device->total, used = instance ? instance->used : device->used;
    *answer = (memory_v2){answer->version, total, 0, total - used, used};
    OUT(SUCCESS);
}

/* Number calls: the value is computed with the device at hand; `supported` is what a card without the thing lacks. */
#define NUMBER(name, type, supported, value) \
    GY_API nvmlReturn name(device_handle device, type *answer) { \
        ON_DEVICE; \
        REFUSE_IF(!answer, INVALID_ARGUMENT); \
        REFUSE_IF(!(supported), NOT_SUPPORTED); \
        gy_advance(gy_now()); \
        *answer = (type)(value); \
        OUT(SUCCESS); \
    }

/* An idle card takes a tenth of its limit, a busy one nearly all; it warms up to match. */
static unsigned power_mw(device_handle device) {
    return device->power_limit_mw / 10 + (unsigned)(device->power_limit_mw / 100 * 85 * device->percent / 100);
}

static unsigned clock_mhz(device_handle device, unsigned kind) {
    bool busy = device->percent > 0;
    if (kind == 2) return busy ? device->memory_mhz : 405;
    return busy ? device->boost_mhz : 210;
}

NUMBER(nvmlDeviceGetPowerUsage, unsigned, true, power_mw(device))
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, true, device->power_limit_mw)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, true, device->power_limit_mw)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, true, device->power_limit_mw)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, true,
       device->busy_ns / 1000000u * (device->power_limit_mw / 100 * 95) / 1000u)
NUMBER(nvmlDeviceGetFanSpeed, unsigned, device->consumer, device->percent / 2)
NUMBER(nvmlDeviceGetComputeMode, unsigned, true, device->compute_mode)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, true, 1)
NUMBER(nvmlDeviceGetPerformanceState, unsigned, true, device->percent ? 0 : 8)
NUMBER(nvmlDeviceGetDisplayMode, unsigned, true, 0)
NUMBER(nvmlDeviceGetDisplayActive, unsigned, true, 0)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, true, device->pcie_generation)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, true, device->pcie_generation)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, true, device->pcie_lanes)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, true, device->pcie_lanes)
NUMBER(nvmlDeviceGetMemoryBusWidth, unsigned, true, device->bus_width_bits)
NUMBER(nvmlDeviceGetMinorNumber, unsigned, true, number_of(device))
NUMBER(nvmlDeviceGetIndex, unsigned, true, number_of(device))
NUMBER(nvmlDeviceGetBrand, unsigned, true, device->consumer ? 5 : 15)
NUMBER(nvmlDeviceGetNumGpuCores, unsigned, true, device->multiprocessors * (device->major == 8 && !device->minor ? 64 : 128))

GY_API nvmlReturn nvmlDeviceGetUtilizationRates(device_handle device, unsigned answer[2]) {
    ON_DEVICE;
    REFUSE_IF(!answer, INVALID_ARGUMENT);
    REFUSE_IF(device->mig_mode, NOT_SUPPORTED); /* nobody says how busy a card is whose parts are busy by themselves */
    gy_reap();
    gy_advance(gy_now());
    answer[0] = (unsigned)device->percent;
    answer[1] = (unsigned)device->percent / 2;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetTemperature(device_handle device, unsigned sensor, unsigned *answer) {
    ON_DEVICE;
    REFUSE_IF(sensor || !answer, INVALID_ARGUMENT);
    gy_advance(gy_now());
    *answer = 34 + (unsigned)(device->percent * 38 / 100);
    OUT(SUCCESS);
}

static nvmlReturn clock_of(const char *function, device_handle device, unsigned kind, unsigned *answer, bool highest) {
    TRY(nv_enter_device(function, device));
    REFUSE_IF(kind > 3 || !answer, INVALID_ARGUMENT);
    gy_advance(gy_now());
    *answer = highest ? (kind == 2 ? device->memory_mhz : device->boost_mhz) : clock_mhz(device, kind);
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetClockInfo(device_handle d, unsigned kind, unsigned *a) { return clock_of(__func__, d, kind, a, false); }
GY_API nvmlReturn nvmlDeviceGetMaxClockInfo(device_handle d, unsigned kind, unsigned *a) { return clock_of(__func__, d, kind, a, true); }

GY_API nvmlReturn nvmlDeviceSetComputeMode(device_handle device, unsigned mode) {
    ON_DEVICE;
    REFUSE_IF(mode > 3 || mode == 1, mode == 1 ? NOT_SUPPORTED : INVALID_ARGUMENT);
    device->compute_mode = mode;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceSetPowerManagementLimit(device_handle device, unsigned limit_mw) {
    ON_DEVICE;
    REFUSE_IF(limit_mw < 100000 || limit_mw > 2 * device->power_limit_mw, INVALID_ARGUMENT);
    device->power_limit_mw = limit_mw;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetPowerManagementLimitConstraints(device_handle device, unsigned *least, unsigned *most) {
    ON_DEVICE;
    REFUSE_IF(!least || !most, INVALID_ARGUMENT);
    *least = 100000;
    *most = device->power_limit_mw;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetEccMode(device_handle device, unsigned *current, unsigned *pending) {
    ON_DEVICE;
    REFUSE_IF(!current || !pending, INVALID_ARGUMENT);
    REFUSE_IF(device->consumer, NOT_SUPPORTED);
    *current = *pending = device->ecc_mode;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetTotalEccErrors(device_handle device, unsigned kind, unsigned counter, unsigned long long *count) {
    ON_DEVICE;
    REFUSE_IF(!count || kind > 1 || counter > 1, INVALID_ARGUMENT);
    REFUSE_IF(device->consumer, NOT_SUPPORTED);
    *count = 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetCudaComputeCapability(device_handle device, int *major, int *minor) {
    ON_DEVICE;
    REFUSE_IF(!major || !minor, INVALID_ARGUMENT);
    *major = (int)device->major;
    *minor = (int)device->minor;
    OUT(SUCCESS);
}

/* All cards hang on one host bridge, two and two below one switch where they are made for a data centre. */
GY_API nvmlReturn nvmlDeviceGetTopologyCommonAncestor(device_handle device, device_handle other, unsigned *level) {
    ON_DEVICE;
    REFUSE_IF(!level || !nv_is_device(other), INVALID_ARGUMENT);
    bool near = !device->consumer && !other->consumer && number_of(device) / 2 == number_of(other) / 2;
    *level = device == other ? 0 : near ? 10 : 30;
    OUT(SUCCESS);
}
