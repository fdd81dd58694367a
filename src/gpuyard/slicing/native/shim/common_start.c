/* The way in, of both libraries: finds the driver and fills the table behind the trampolines. Nothing happens before the
 * first call, so a program that never uses CUDA or NVML is not touched. */
#include "names.h"
#include "shim.h"

int gy_answer = -1;

#define NAME(name, denied) #name,
#define DENIED(name, denied) denied,
const char *const gy_names[] = {GY_EACH_NAME(NAME)};
const uint8_t gy_denied[] = {GY_EACH_NAME(DENIED)};

static int refuse(void) { return gy_library.refused; }
int gy_lacking(void) { return gy_library.lacking; }

EXPORT const char gpuyardShim[] = "gpuyard";

static const char *start(void) {
    const char *why = gy_slice_read();
    if (why != NULL) return why;
    void *driver = gy_library.driver[0] ? dlopen(gy_library.driver, RTLD_NOW | RTLD_LOCAL) : NULL, *real[GY_NAMES];
    if (driver == NULL) return "its driver library cannot be loaded";
    if (dlsym(driver, "gpuyardShim") != NULL) return "its driver library is the shim itself";
    if ((why = gy_ledger_open(gy_library.holds)) != NULL) return why;
    for (int i = 0; i < GY_NAMES; i++) {
        void *found = gy_denied[i] ? (void *)refuse : dlsym(driver, gy_names[i]);
        real[i] = found != NULL ? found : (void *)gy_lacking;
    }
    memcpy(gy_real, real, sizeof real);
    return gy_library.open(driver);
}

static void start_once(void) {
    const char *why = start(), *path = getenv("GPUYARD_SLICE");
    if (why != NULL) {
        for (int i = 0; i < GY_NAMES; i++) gy_real[i] = (void *)refuse;
        fprintf(stderr, "gpuyard: %s is refused here: the slice file %s is not valid: %s.\n", gy_library.api, path ? path : "--", why);
    }
    __atomic_store_n(&gy_answer, why == NULL ? 0 : gy_library.refused, __ATOMIC_RELEASE);
}

int gy_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_once);
    return gy_answer;
}

/* Called by the stubs that stand in the table until it is filled. */
__attribute__((visibility("hidden"))) void gy_fill(void);
void gy_fill(void) { gy_start(); }
