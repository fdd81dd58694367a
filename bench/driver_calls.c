/* Calls one driver function so many times: what a call costs is the slope between two counts.
 * driver_calls launch|memory|pass COUNT LIVE */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long Pointer;
typedef int (*Call)();

int main(int count, char **words) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *context, *module, *kernel, *stream;
    if (driver == NULL || count < 4) return 3;
#define GET(name) ((Call)dlsym(driver, #name))
    Call launch = GET(cuLaunchKernel), allocate = GET(cuMemAlloc_v2), release = GET(cuMemFree_v2), pass = GET(cuCtxGetDevice);
    int device;
    if (GET(cuInit)(0) || GET(cuDevicePrimaryCtxRetain)(&context, 0) || GET(cuCtxSetCurrent)(context)) return 2;
    if (GET(cuModuleLoadData)(&module, "image") || GET(cuModuleGetFunction)(&kernel, module, "k_50000")) return 2;
    if (GET(cuStreamCreate)(&stream, 1)) return 2;
    long times = atol(words[2]), live = atol(words[3]);
    Pointer *held = calloc((size_t)live + 1, sizeof *held);
    for (long i = 0; i < live; i++)
        if (allocate(&held[i], (size_t)512)) return 2;
    for (long i = 0; i < times; i++) {
        if (words[1][0] == 'l') {
            if (launch(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL)) return 2;
        } else if (words[1][0] == 'm') {
            Pointer pointer;
            if (allocate(&pointer, (size_t)4096) || release(pointer)) return 2;
        } else {
            pass(&device);
        }
    }
    printf("%ld\n", times);
    return 0;
}
