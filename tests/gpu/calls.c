/* What calls cost on a real driver, in nanoseconds: the least mean of nine rounds. calls COUNT; a JSON line a call.
 * The kernel is empty, given as PTX; the queue is drained between rounds, outside of the time that counts. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef unsigned long long Pointer;
typedef int (*Call)();

static const char *PTX = ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry nothing()\n{\n  ret;\n}\n";
static void *driver, *stream, *kernel;

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static Call get(const char *name) {
    Call call = (Call)dlsym(driver, name);
    if (!call) fprintf(stderr, "lacks %s\n", name), exit(3);
    return call;
}

static void must(int result, const char *what) {
    if (result) fprintf(stderr, "%s: %d\n", what, result), exit(2);
}

int main(int count, char **words) {
    int times = count > 1 ? atoi(words[1]) : 500, device;
    void *context, *module;
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) return fprintf(stderr, "%s\n", dlerror()), 3;
    must(get("cuInit")(0), "cuInit");
    must(get("cuDevicePrimaryCtxRetain")(&context, 0), "context");
    must(get("cuCtxSetCurrent")(context), "current");
    must(get("cuModuleLoadData")(&module, PTX), "module");
    must(get("cuModuleGetFunction")(&kernel, module, "nothing"), "function");
    must(get("cuStreamCreate")(&stream, 1), "stream");
    Call launch = get("cuLaunchKernel"), sync = get("cuStreamSynchronize"), allocate = get("cuMemAlloc_v2");
    Call release = get("cuMemFree_v2"), info = get("cuMemGetInfo_v2"), pass = get("cuCtxGetDevice");
    const char *kinds[] = {"launch", "alloc_free", "mem_get_info", "pass_through"};
    for (int kind = 0; kind < 4; kind++) {
        double least = 1e18;
        for (int round = 0; round < 9; round++) {
            size_t free_bytes, total;
            Pointer pointer;
            must(sync(stream), "sync");
            double begun = now_ns();
            for (int i = 0; i < times; i++) {
                if (kind == 0) must(launch(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "launch");
                else if (kind == 1) must(allocate(&pointer, (size_t)4 << 20), "alloc"), must(release(pointer), "free");
                else if (kind == 2) must(info(&free_bytes, &total), "info");
                else must(pass(&device), "pass");
            }
            double each = (now_ns() - begun) / times;
            if (each < least) least = each;
        }
        must(sync(stream), "sync");
        printf("{\"call\": \"%s\", \"ns\": %.1f}\n", kinds[kind], least);
    }
    return 0;
}
