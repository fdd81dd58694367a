/* NVML as a slice sees it: its own cards, its memory, its processes. Changing a card is not for tenants. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_names.h"
#include "shim.h"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NO_PERMISSION = 4, NOT_THERE = 6, INSUFFICIENT_SIZE = 7, NO_FUNCTION = 13 };
typedef struct gy_opaque_device *Device;
typedef int Result;

extern void *gy_real[GY_NAMES];
#define REAL(name) ((__typeof__(&name))gy_real[I_##name])
#define ENTER() do { if (UNLIKELY(answer != SUCCESS) && start() != SUCCESS) return NO_PERMISSION; } while (0)

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct process_v1 { unsigned pid; unsigned long long bytes; };
struct process { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; };
struct sample { unsigned pid; unsigned long long at_us; unsigned sm, memory, encoder, decoder; };
struct rates { unsigned gpu, memory; };

Result nvmlDeviceGetUUID(Device, char *, unsigned);
Result nvmlDeviceGetHandleByUUID(const char *, Device *);

#define NAME(name, denied) #name,
#define DENIED(name, denied) denied,
static const char *const names[] = {GY_EACH_NAME_NVML(NAME)};
static const uint8_t denied[] = {GY_EACH_NAME_NVML(DENIED)};
static int answer = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int refuse(void) { return NO_PERMISSION; }
static int lacking(void) { return NO_FUNCTION; }

static const char *open_all(void) {
    const char *why = gy_slice_read();
    if (why != NULL) return why;
    void *driver = gy_slice.real_nvml[0] ? dlopen(gy_slice.real_nvml, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (driver == NULL) return "its NVML library cannot be loaded";
    if ((why = gy_ledger_open(false)) != NULL) return why;
    for (int i = 0; i < GY_NAMES; i++) {
        void *found = denied[i] ? (void *)refuse : dlsym(driver, names[i]);
        gy_real[i] = found != NULL ? found : (void *)lacking;
    }
    return NULL;
}

static void start_once(void) {
    const char *why = open_all();
    if (why != NULL) {
        fprintf(stderr, "gpuyard: NVML is refused here: the slice file is not valid: %s.\n", why);
        for (int i = 0; i < GY_NAMES; i++) gy_real[i] = (void *)refuse;
    }
    answer = why == NULL ? SUCCESS : NO_PERMISSION;
}

static int start(void) {
    pthread_once(&once, start_once);
    return answer;
}

__attribute__((visibility("hidden"))) void gy_fill(void) { start(); }

EXPORT Result nvmlInit(void) { ENTER(); return REAL(nvmlInit)(); }
EXPORT Result nvmlInit_v2(void) { ENTER(); return REAL(nvmlInit_v2)(); }
EXPORT Result nvmlInitWithFlags(unsigned flags) { ENTER(); return REAL(nvmlInitWithFlags)(flags); }

static void uuid_text(int card, char *text) {
    const uint8_t *b = gy_slice.cards[card].uuid;
    char *at = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++) at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", b[i]);
}

static int card_of(Device device) {
    char uuid[96], mine[48];
    if (REAL(nvmlDeviceGetUUID)(device, uuid, sizeof uuid) != SUCCESS) return -1;
    for (uint32_t card = 0; card < gy_slice.card_count; card++) {
        uuid_text((int)card, mine);
        if (!strcmp(uuid, mine)) return (int)card;
    }
    return -1;
}

/* Cards are counted as the slice has them: those of others do not exist here. */
EXPORT Result nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER();
    if (count == NULL) return INVALID_ARGUMENT;
    *count = gy_slice.card_count;
    return SUCCESS;
}

EXPORT Result nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

EXPORT Result nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    ENTER();
    char uuid[48];
    if (index >= gy_slice.card_count) return INVALID_ARGUMENT;
    uuid_text((int)index, uuid);
    return REAL(nvmlDeviceGetHandleByUUID)(uuid, device);
}

EXPORT Result nvmlDeviceGetHandleByIndex(unsigned index, Device *device) { return nvmlDeviceGetHandleByIndex_v2(index, device); }

static Result only_ours(Result result, Device *device) {
    if (result != SUCCESS || card_of(*device) >= 0) return result;
    *device = NULL;
    return NOT_THERE;
}

EXPORT Result nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
    ENTER();
    return only_ours(REAL(nvmlDeviceGetHandleByUUID)(uuid, device), device);
}

EXPORT Result nvmlDeviceGetHandleByUUIDV(const void *uuid, Device *device) {
    ENTER();
    return only_ours(REAL(nvmlDeviceGetHandleByUUIDV)(uuid, device), device);
}

EXPORT Result nvmlDeviceGetHandleByPciBusId_v2(const char *id, Device *device) {
    ENTER();
    return only_ours(REAL(nvmlDeviceGetHandleByPciBusId_v2)(id, device), device);
}

EXPORT Result nvmlDeviceGetHandleByPciBusId(const char *id, Device *device) { return nvmlDeviceGetHandleByPciBusId_v2(id, device); }

EXPORT Result nvmlDeviceGetHandleBySerial(const char *serial, Device *device) {
    ENTER();
    return only_ours(REAL(nvmlDeviceGetHandleBySerial)(serial, device), device);
}

EXPORT Result nvmlDeviceGetIndex(Device device, unsigned *index) {
    ENTER();
    int card = card_of(device);
    if (card < 0 || index == NULL) return INVALID_ARGUMENT;
    *index = (unsigned)card;
    return SUCCESS;
}

static void mask(int card, unsigned long long *total, unsigned long long *free, unsigned long long *used) {
    uint64_t limit = gy_slice.cards[card].memory_bytes, taken = gy_used(card);
    if (*total > limit) *total = limit;
    if (taken > *total) taken = *total;
    if (*free > *total - taken) *free = *total - taken;
    *used = *total - *free;
}

EXPORT Result nvmlDeviceGetMemoryInfo(Device device, struct memory *m) {
    ENTER();
    Result result = REAL(nvmlDeviceGetMemoryInfo)(device, m);
    int card = result == SUCCESS ? card_of(device) : -1;
    if (card >= 0) mask(card, &m->total, &m->free, &m->used);
    return result;
}

EXPORT Result nvmlDeviceGetMemoryInfo_v2(Device device, struct memory_v2 *m) {
    ENTER();
    Result result = REAL(nvmlDeviceGetMemoryInfo_v2)(device, m);
    int card = result == SUCCESS ? card_of(device) : -1;
    if (card >= 0) mask(card, &m->total, &m->free, &m->used), m->reserved = 0;
    return result;
}

/* A list of processes holds those of the slice alone, with what the ledger says that they hold. NVML counts pids as the host
 * does and the ledger as the slice does, so the list is made from the ledger. */
static Result list(Device device, unsigned *count, void *out, size_t stride) {
    ENTER();
    int card = card_of(device);
    if (card < 0 || count == NULL) return INVALID_ARGUMENT;
    unsigned room = *count, found = 0;
    for (uint32_t i = 0; i < GY_LEDGER_SLOTS; i++) {
        const struct gy_ledger_slot *slot = &gy_ledger->slots[i];
        uint32_t pid = slot->pid;
        if (pid == 0 || slot->used[card] == 0) continue;
        if (found < room && out != NULL) {
            void *at = (char *)out + stride * found;
            if (stride == sizeof(struct process_v1)) *(struct process_v1 *)at = (struct process_v1){pid, slot->used[card]};
            else *(struct process *)at = (struct process){pid, slot->used[card], UINT32_MAX, UINT32_MAX};
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

static Result none(Device device, unsigned *count) {
    ENTER();
    if (card_of(device) < 0 || count == NULL) return INVALID_ARGUMENT;
    *count = 0;
    return SUCCESS;
}

EXPORT Result nvmlDeviceGetComputeRunningProcesses(Device d, unsigned *n, void *out) { return list(d, n, out, sizeof(struct process_v1)); }
EXPORT Result nvmlDeviceGetComputeRunningProcesses_v2(Device d, unsigned *n, void *out) { return list(d, n, out, sizeof(struct process)); }
EXPORT Result nvmlDeviceGetComputeRunningProcesses_v3(Device d, unsigned *n, void *out) { return list(d, n, out, sizeof(struct process)); }
EXPORT Result nvmlDeviceGetGraphicsRunningProcesses(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
EXPORT Result nvmlDeviceGetGraphicsRunningProcesses_v2(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
EXPORT Result nvmlDeviceGetGraphicsRunningProcesses_v3(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses_v2(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
EXPORT Result nvmlDeviceGetMPSComputeRunningProcesses_v3(Device d, unsigned *n, void *out) { (void)out; return none(d, n); }
