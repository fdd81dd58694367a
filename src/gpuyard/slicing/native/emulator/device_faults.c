/* Faults that a test asked for. */
#include "device_local.h"
#include <string.h>

static bool meant(const struct gy_emulator_injection *fault, const char *function, uint32_t card) {
    if (!fault->in_use || !fault->times) return false;
    if (fault->card != UINT32_MAX && fault->card != card) return false;
    return !strcmp(fault->function, "*") || !strcmp(fault->function, function);
}

uint32_t gy_injected(const char *function, uint32_t card) {
    uint32_t result = 0;
    for (uint32_t i = 0; i < gy_here->injection_count && i < GY_EMULATOR_INJECTIONS; i++) {
        struct gy_emulator_injection *fault = &gy_here->injections[i];
        if (!meant(fault, function, card)) continue;
        if (fault->skip) {
            fault->skip--;
            continue;
        }
        fault->hits++;
        if (fault->times != UINT32_MAX) fault->times--;
        if (fault->delay_ns) gy_wait_until(gy_now() + fault->delay_ns);
        if (!result) result = fault->result;
    }
    return result;
}
