/* Who computes on a card, with how much of it. */
#include "nvml_state.h"
#include <string.h>

static const gy_lane *next_on(device_handle device, uint32_t *at) {
    for (uint32_t card = (uint32_t)(device - gy_here->cards); *at < gy_here->lane_high;) {
        const gy_lane *lane = &gy_here->lanes[(*at)++];
        if (lane->process && lane->card == card && lane->contexts) return lane;
    }
    return NULL;
}

/* As many as fit; the count says how many there are, also where they do not fit. */
static nvmlReturn list(const char *function, device_handle device, unsigned *count, void *answer, size_t size) {
    instance_handle instance;
    TRY(nv_enter_either(function, &device, &instance));
    REFUSE_IF(!count || (*count && !answer), INVALID_ARGUMENT);
    unsigned room = *count, found = 0;
    uint32_t at = 0;
    gy_reap();
    for (const gy_lane *lane; (lane = next_on(device, &at));) {
        if (instance && gy_mig_of(lane) != instance) continue;
        uint32_t in = lane->instance ? lane->instance : UINT32_MAX, part = lane->instance ? 0 : UINT32_MAX;
        process_v2 process = {gy_pid_here((int)lane->process - 1), lane->used, in, part};
        if (found < room) memcpy((char *)answer + found * size, &process, size);
        found++;
    }
    *count = found;
    OUT(found > room ? INSUFFICIENT_SIZE : SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetComputeRunningProcesses(device_handle d, unsigned *count, process_v1 *a) {
    return list(__func__, d, count, a, sizeof *a);
}
GY_API nvmlReturn nvmlDeviceGetComputeRunningProcesses_v2(device_handle d, unsigned *count, process_v2 *a) {
    return list(__func__, d, count, a, sizeof *a);
}
GY_API nvmlReturn nvmlDeviceGetComputeRunningProcesses_v3(device_handle d, unsigned *count, process_v2 *a) {
    return list(__func__, d, count, a, sizeof *a);
}

static nvmlReturn none(const char *function, device_handle device, unsigned *count) {
    TRY(nv_enter_device(function, device));
    REFUSE_IF(!count, INVALID_ARGUMENT);
    *count = 0;
    OUT(SUCCESS);
}

GY_API nvmlReturn nvmlDeviceGetGraphicsRunningProcesses_v3(device_handle d, unsigned *count, void *a) {
    (void)a;
    return none(__func__, d, count);
}
GY_API nvmlReturn nvmlDeviceGetMPSComputeRunningProcesses_v3(device_handle d, unsigned *count, void *a) {
    (void)a;
    return none(__func__, d, count);
}

GY_API nvmlReturn nvmlDeviceGetProcessUtilization(device_handle device, utilization_sample *answer, unsigned *count,
                                                  unsigned long long since_us) {
    ON_DEVICE;
    REFUSE_IF(!count, INVALID_ARGUMENT);
    unsigned room = answer ? *count : 0, found = 0;
    uint32_t at = 0;
    gy_reap();
    gy_advance(gy_now());
    uint64_t when_us = device->window_ns / 1000;
    for (const gy_lane *lane; when_us > since_us && (lane = next_on(device, &at)); found++)
        if (found < room)
            answer[found] = (utilization_sample){gy_pid_here((int)lane->process - 1), when_us, lane->percent, 0, 0, 0};
    *count = found;
    if (!found) OUT(NOT_FOUND);
    OUT(found > room ? INSUFFICIENT_SIZE : SUCCESS);
}

GY_API nvmlReturn nvmlSystemGetProcessName(unsigned pid, char *text, unsigned length) {
    TRY(nv_enter(__func__));
    REFUSE_IF(!text || !length, INVALID_ARGUMENT);
    for (uint32_t i = 0; i < gy_here->process_high; i++) {
        if (gy_here->processes[i].pid != pid) continue;
        strncpy(text, "emulated", length);
        text[length - 1] = 0;
        OUT(SUCCESS);
    }
    OUT(NOT_FOUND);
}
