/* NVML as a slice sees it: its own cards, its memory, its processes. Changing a card is not for tenants. */
#include "nvml_shim.h"

static const char *open_nvml(void *driver) { return driver == NULL ? "it is not loaded" : NULL; }
const struct gy_library gy_library = {"NVML", gy_slice.real_nvml, NO_PERMISSION, NO_FUNCTION, false, open_nvml};

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
#define COUNT(name, per_thread, extra, parameters, ...) \
    OURS(name) parameters {                             \
        if (count == NULL) return INVALID_ARGUMENT;     \
        *count = gy_slice.card_count;                   \
        return SUCCESS;                                 \
    }
GY_EACH_COUNT(COUNT)

#define BY_INDEX(name, per_thread, extra, parameters, ...)         \
    OURS(name) parameters {                                        \
        char uuid[48];                                             \
        if (index >= gy_slice.card_count) return INVALID_ARGUMENT; \
        uuid_text((int)index, uuid);                               \
        return REAL(nvmlDeviceGetHandleByUUID)(uuid, device);      \
    }
GY_EACH_BY_INDEX(BY_INDEX)

#define FIND(name, per_thread, extra, parameters, ...)                 \
    OURS(name) parameters {                                            \
        Result result = REAL(name)(__VA_ARGS__);                       \
        if (result != SUCCESS || card_of(*device) >= 0) return result; \
        *device = NULL;                                                \
        return NOT_THERE;                                              \
    }
GY_EACH_FIND(FIND)

OURS(nvmlDeviceGetIndex)(Device device, unsigned *index) {
    int card = card_of(device);
    if (card < 0 || index == NULL) return INVALID_ARGUMENT;
    *index = (unsigned)card;
    return SUCCESS;
}

#define MEMORY(name, per_thread, and_then, parameters, ...)  \
    OURS(name) parameters {                                  \
        Result result = REAL(name)(__VA_ARGS__);             \
        int card = result == SUCCESS ? card_of(device) : -1; \
        if (card < 0) return result;                         \
        gy_mask(card, &info->total, &info->free);            \
        info->used = info->total - info->free;               \
        and_then;                                            \
        return SUCCESS;                                      \
    }
GY_EACH_MEMORY(MEMORY)

/* A list of processes holds those of the slice alone, with what the ledger says that they hold. NVML counts pids as the host
 * does and the ledger as the slice does, so the list is made from the ledger. Of a kind without a size there are none. */
static Result list(Device device, unsigned *count, void *out, size_t stride) {
    int card = card_of(device);
    if (card < 0 || count == NULL) return INVALID_ARGUMENT;
    unsigned room = *count, found = 0;
    for (uint32_t i = 0; i < GY_LEDGER_SLOTS && stride; i++) {
        const struct gy_ledger_slot *slot = &gy_ledger->slots[i];
        uint32_t pid = slot->pid;
        if (pid == 0 || slot->used[card] == 0) continue;
        if (found < room && out != NULL) {
            struct process one = {pid, slot->used[card], UINT32_MAX, UINT32_MAX}; /* an older one is its beginning */
            memcpy((char *)out + stride * found, &one, stride);
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define LIST(name, per_thread, stride, parameters, ...) \
    OURS(name) parameters {                             \
        return list(device, count, out, stride);        \
    }
GY_EACH_LIST(LIST)
