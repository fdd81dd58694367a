/* A stand-in for libnvidia-ml.so.1 with as much of NVML as a probe asks for. Tests set the globals through ctypes. */
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };

typedef struct {
    char name[96];
    char uuid[96];
    unsigned int domain, bus, device;
    unsigned long long memory;
    int answer; /* what every question about the card returns */
    int mig;    /* -1: the card has no MIG */
} fake_card;

fake_card fake_cards[16];
unsigned int fake_count = 0;
int fake_init_answer = SUCCESS;
int fake_count_answer = SUCCESS;
int fake_open = 0; /* how many inits have no shutdown yet */

typedef struct {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

typedef struct {
    unsigned long long total, free, used;
} memory_info;

int nvmlInitWithFlags(unsigned int flags) {
    if (fake_init_answer == SUCCESS) fake_open++;
    return fake_init_answer;
}

int nvmlShutdown(void) {
    fake_open--;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    strncpy(version, "615.71.09", length);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = fake_count;
    return fake_count_answer;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, fake_card **card) {
    if (index >= fake_count) return INVALID_ARGUMENT;
    *card = &fake_cards[index];
    return SUCCESS;
}

int nvmlDeviceGetName(fake_card *card, char *name, unsigned int length) {
    strncpy(name, card->name, length);
    return card->answer;
}

int nvmlDeviceGetUUID(fake_card *card, char *uuid, unsigned int length) {
    strncpy(uuid, card->uuid, length);
    return card->answer;
}

int nvmlDeviceGetPciInfo_v3(fake_card *card, pci_info *info) {
    memset(info, 0, sizeof *info);
    info->domain = card->domain;
    info->bus = card->bus;
    info->device = card->device;
    return card->answer;
}

int nvmlDeviceGetMemoryInfo(fake_card *card, memory_info *info) {
    info->total = card->memory;
    info->free = card->memory;
    info->used = 0;
    return card->answer;
}

int nvmlDeviceGetMigMode(fake_card *card, unsigned int *current, unsigned int *pending) {
    if (card->mig < 0) return NOT_SUPPORTED;
    *current = *pending = (unsigned int)card->mig;
    return card->answer;
}

#ifdef WITH_MEMORY_LIMITS
int nvmlDeviceGetMemoryLimits_v1(fake_card *card, void *limits) { return NOT_SUPPORTED; }
#endif
