/* Memory limits of a cgroup: what drivers from 615 on set and tell. Only root sets them. */
#include "nvml_state.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct { const char *folder; unsigned long long soft, hard; } limits_to_set;
typedef struct { const char *folder; unsigned long long soft, hard, used; } limits_told;

enum { FIRST_WITH_LIMITS = 615 };

/* The group that a folder is, below the machine's own; NULL where it is none. */
static const char *group_of(const char *folder) {
    size_t length = strlen(gy_here->group_root);
    struct stat seen;
    if (!length || strncmp(folder, gy_here->group_root, length) || stat(folder, &seen) || !S_ISDIR(seen.st_mode)) return NULL;
    return folder[length] == '/' && folder[length + 1] ? folder + length : NULL;
}

static bool has_limits(void) { return atoi(gy_here->driver_version) >= FIRST_WITH_LIMITS && gy_here->group_root[0]; }

GY_API nvmlReturn nvmlDeviceSetMemoryLimits_v1(device_handle device, limits_to_set *limits) {
    ON_DEVICE;
    REFUSE_IF(!limits || !limits->folder || limits->soft > limits->hard, INVALID_ARGUMENT);
    REFUSE_IF(!has_limits() || device->mig_mode, NOT_SUPPORTED);
    REFUSE_IF(geteuid() != 0, NO_PERMISSION);
    REFUSE_IF(!group_of(limits->folder), NOT_FOUND);
    bool written = gy_group_write(device, limits->folder, "dmem.max", limits->hard);
    written = written && gy_group_write(device, limits->folder, "dmem.min", limits->soft);
    OUT(written ? SUCCESS : NO_PERMISSION);
}

GY_API nvmlReturn nvmlDeviceGetMemoryLimits_v1(device_handle device, limits_told *limits) {
    ON_DEVICE;
    REFUSE_IF(!limits || !limits->folder, INVALID_ARGUMENT);
    REFUSE_IF(!has_limits() || device->mig_mode, NOT_SUPPORTED);
    const char *group = group_of(limits->folder);
    REFUSE_IF(!group, NOT_FOUND);
    gy_reap();
    limits->hard = gy_group_read(device, limits->folder, "dmem.max");
    limits->soft = gy_group_read(device, limits->folder, "dmem.min");
    if (limits->soft == UINT64_MAX) limits->soft = 0;
    limits->used = gy_group_used((uint32_t)(device - gy_here->cards), group);
    OUT(SUCCESS);
}
