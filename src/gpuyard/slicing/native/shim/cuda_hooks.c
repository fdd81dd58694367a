/* Which of our functions stands for which of the driver's. A hooked name without a function does not link. */
#include "cuda_names.h"

struct ours { int index; void *hook; };

#define DECLARE(name) extern int name();
#define OURS(name) {I_##name, (void *)name},
GY_EACH_HOOK_CUDA(DECLARE)
static const struct ours hooks[] = {GY_EACH_HOOK_CUDA(OURS)};

const struct ours *gy_each_hook(unsigned long *count);
const struct ours *gy_each_hook(unsigned long *count) {
    *count = sizeof hooks / sizeof hooks[0];
    return hooks;
}
