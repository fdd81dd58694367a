/* NVML's beginning and end, and the way to a device. */
#include "nvml_state.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

static unsigned users;
static device_handle listed[GY_MAX_CARDS]; /* what was there at the first initialization */
static unsigned listed_count;

static nvmlReturn begin(const char *function) {
    if (!gy_open()) return DRIVER_NOT_LOADED;
    gy_lock();
    nvmlReturn result = (nvmlReturn)gy_injected(function, UINT32_MAX);
    if (!result && !users++) {
        listed_count = 0;
        for (uint32_t i = 0; i < gy_here->card_count; i++)
            if (!gy_here->cards[i].unplugged) listed[listed_count++] = &gy_here->cards[i];
    }
    gy_unlock();
    return result;
}

GY_API nvmlReturn nvmlInit(void) { return begin(__func__); }
GY_API nvmlReturn nvmlInit_v2(void) { return begin(__func__); }
GY_API nvmlReturn nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return begin(__func__);
}

GY_API nvmlReturn nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

nvmlReturn nv_enter(const char *function) {
    if (!users || !gy_open()) return UNINITIALIZED;
    gy_lock();
    uint32_t result = gy_here->injection_count ? gy_injected(function, UINT32_MAX) : 0;
    if (result) gy_unlock();
    return (nvmlReturn)result;
}

bool nv_is_device(const void *device) {
    for (uint32_t i = 0; i < gy_here->card_count; i++)
        if (device == &gy_here->cards[i]) return true;
    return false;
}

nvmlReturn nv_enter_device(const char *function, device_handle device) {
    if (!users || !gy_open()) return UNINITIALIZED;
    gy_lock();
    REFUSE_IF(!nv_is_device(device), nv_mig_device(device) ? NOT_SUPPORTED : INVALID_ARGUMENT);
    uint32_t card = (uint32_t)(device - gy_here->cards);
    uint32_t result = gy_here->injection_count ? gy_injected(function, card) : 0;
    if (!result && (device->lost || device->unplugged)) result = GPU_IS_LOST;
    if (result) gy_unlock();
    return (nvmlReturn)result;
}

nvmlReturn nv_enter_either(const char *function, device_handle *device, instance_handle *instance) {
    uint32_t place;
    if (!users || !gy_open()) return UNINITIALIZED;
    gy_lock();
    *instance = nv_mig_device(*device);
    if (*instance) *device = nv_card_of(*instance, &place);
    gy_unlock();
    return nv_enter_device(function, *device);
}

nvmlReturn nv_leave(nvmlReturn result) {
    gy_unlock();
    return result;
}

static nvmlReturn count_of(const char *function, unsigned *count) {
    TRY(nv_enter(function));
    REFUSE_IF(!count, INVALID_ARGUMENT);
    *count = listed_count;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetCount(unsigned *count) { return count_of(__func__, count); }
GY_API nvmlReturn nvmlDeviceGetCount_v2(unsigned *count) { return count_of(__func__, count); }

static nvmlReturn by_index(const char *function, unsigned index, device_handle *device) {
    TRY(nv_enter(function));
    REFUSE_IF(!device || index >= listed_count, INVALID_ARGUMENT);
    *device = listed[index];
    OUT((*device)->lost || (*device)->unplugged ? GPU_IS_LOST : SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetHandleByIndex(unsigned index, device_handle *d) { return by_index(__func__, index, d); }
GY_API nvmlReturn nvmlDeviceGetHandleByIndex_v2(unsigned index, device_handle *d) { return by_index(__func__, index, d); }

void nv_uuid(const gy_card *card, char text[41]) {
    const uint8_t *u = card->uuid;
    snprintf(text, 41, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
             u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

GY_API nvmlReturn nvmlDeviceGetHandleByUUID(const char *wish, device_handle *device) {
    TRY(nv_enter(__func__));
    REFUSE_IF(!wish || !device, INVALID_ARGUMENT);
    for (unsigned i = 0; i < listed_count; i++) {
        char text[41];
        nv_uuid(listed[i], text);
        if (strcasecmp(text, wish)) continue;
        *device = listed[i];
        OUT(listed[i]->lost || listed[i]->unplugged ? GPU_IS_LOST : SUCCESS);
    }
    for (uint32_t i = 0; i < gy_here->card_count; i++) {
        for (uint32_t j = 0; j < GY_EMULATOR_INSTANCES; j++) {
            char text[41];
            gy_mig_uuid(&gy_here->cards[i].instances[j], text);
            if (!nv_mig_device(&gy_here->cards[i].instances[j]) || strcasecmp(text, wish)) continue;
            *device = (device_handle)(void *)&gy_here->cards[i].instances[j];
            OUT(SUCCESS);
        }
    }
    OUT(NOT_FOUND);
}

static nvmlReturn by_address(const char *function, const char *wish, device_handle *device) {
    unsigned domain = 0, bus = 0, slot = 0;
    TRY(nv_enter(function));
    REFUSE_IF(!wish || !device, INVALID_ARGUMENT);
    if (sscanf(wish, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        REFUSE_IF(sscanf(wish, "%x:%x", &bus, &slot) != 2, INVALID_ARGUMENT);
    }
    for (unsigned i = 0; i < listed_count; i++) {
        if (listed[i]->pci_domain != domain || listed[i]->pci_bus != bus || slot) continue;
        *device = listed[i];
        OUT(listed[i]->lost || listed[i]->unplugged ? GPU_IS_LOST : SUCCESS);
    }
    OUT(NOT_FOUND);
}

GY_API nvmlReturn nvmlDeviceGetHandleByPciBusId(const char *a, device_handle *d) { return by_address(__func__, a, d); }
GY_API nvmlReturn nvmlDeviceGetHandleByPciBusId_v2(const char *a, device_handle *d) { return by_address(__func__, a, d); }

static nvmlReturn say(const char *function, char *text, unsigned length, const char *value) {
    TRY(nv_enter(function));
    REFUSE_IF(!text, INVALID_ARGUMENT);
    REFUSE_IF(length <= strlen(value), INSUFFICIENT_SIZE);
    strcpy(text, value);
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return say(__func__, text, length, gy_here ? gy_here->driver_version : "");
}

GY_API nvmlReturn nvmlSystemGetNVMLVersion(char *text, unsigned length) {
    char version[40];
    snprintf(version, sizeof version, "13.%s", gy_here ? gy_here->driver_version : "");
    return say(__func__, text, length, version);
}

static nvmlReturn cuda_version(const char *function, int *version) {
    TRY(nv_enter(function));
    REFUSE_IF(!version, INVALID_ARGUMENT);
    *version = (int)gy_here->cuda_version;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlSystemGetCudaDriverVersion(int *version) { return cuda_version(__func__, version); }
GY_API nvmlReturn nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda_version(__func__, version); }

GY_API const char *nvmlErrorString(nvmlReturn result) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions", "Already Initialized",
        "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "GPU access blocked by the operating system", "Driver/library version mismatch", "In use by another client",
        "Insufficient Memory", "No data", "vGPU ECC not supported", "Insufficient Resources", "Frequency not supported",
        "Argument version mismatch",
    };
    return result >= 0 && result < (int)(sizeof texts / sizeof *texts) ? texts[result] : "Unknown Error";
}
