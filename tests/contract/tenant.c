/* A tenant's program: allocates by every way that the driver has, launches by every way, and says what came of it.
 * tenant WORD ...: see main. Prints one line a step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long long Pointer;
typedef void *Handle;
typedef int (*Call)();

static void *driver;

static Call get(const char *name) {
    Call call = (Call)dlsym(driver, name);
    if (call == NULL) {
        printf("lacks %s\n", name);
        exit(3);
    }
    return call;
}
#define CALL(name, ...) get(#name)(__VA_ARGS__)

static void must(int result, const char *what) {
    if (result) {
        printf("%s failed: %d\n", what, result);
        exit(2);
    }
}

static Handle begin(void) {
    Handle context;
    must(CALL(cuInit, 0), "cuInit");
    must(CALL(cuDevicePrimaryCtxRetain, &context, 0), "context");
    must(CALL(cuCtxSetCurrent, context), "current");
    return context;
}

struct location { int type, id; };
struct prop { int type, handles; struct location location; void *win; unsigned char flags[8]; };
struct pool_props { int type, handles; struct location location; void *security; size_t most; unsigned short usage; unsigned char rest[54]; };
struct array { size_t width, height; int format; unsigned channels; };

static int allocate(const char *way, size_t bytes, Pointer *out) {
    size_t pitch;
    if (!strcmp(way, "plain")) return CALL(cuMemAlloc_v2, out, bytes);
    if (!strcmp(way, "pitch")) return CALL(cuMemAllocPitch_v2, out, &pitch, bytes >> 10, (size_t)1024, 4);
    if (!strcmp(way, "managed")) return CALL(cuMemAllocManaged, out, bytes, 1);
    if (!strcmp(way, "async")) return CALL(cuMemAllocAsync, out, bytes, NULL);
    if (!strcmp(way, "async_ptsz")) return CALL(cuMemAllocAsync_ptsz, out, bytes, NULL);
    if (!strcmp(way, "array")) {
        struct array a = {4096, bytes / 16384, 0x20, 1};
        return CALL(cuArrayCreate_v2, (Handle *)out, &a);
    }
    if (!strcmp(way, "vmm")) {
        struct prop p = {.type = 1, .location = {1, 0}};
        return CALL(cuMemCreate, out, bytes, &p, 0ull);
    }
    if (!strcmp(way, "pool")) {
        static Handle pool;
        struct pool_props p = {.type = 1, .location = {1, 0}};
        if (pool == NULL) must(CALL(cuMemPoolCreate, &pool, &p), "pool");
        return CALL(cuMemAllocFromPoolAsync, out, bytes, pool, NULL);
    }
    printf("no way %s\n", way);
    exit(3);
}

static int release(const char *way, Pointer pointer) {
    if (!strcmp(way, "array")) return CALL(cuArrayDestroy, (Handle)pointer);
    if (!strcmp(way, "vmm")) return CALL(cuMemRelease, pointer);
    if (!strcmp(way, "pool") || !strncmp(way, "async", 5)) return CALL(cuMemFreeAsync, pointer, NULL);
    return CALL(cuMemFree_v2, pointer);
}

static void fill(const char *way, size_t bytes) {
    static Pointer held[100000];
    int count = 0, result = 0;
    begin();
    while (count < 100000 && (result = allocate(way, bytes, &held[count])) == 0) count++;
    printf("granted %d then %d\n", count, result);
    for (int i = 0; i < count; i++) must(release(way, held[i]), "release");
    CALL(cuCtxSynchronize);
    size_t free_bytes, total;
    must(CALL(cuMemGetInfo_v2, &free_bytes, &total), "info");
    printf("free %zu total %zu\n", free_bytes, total);
    count = 0;
    while (count < 100000 && (result = allocate(way, bytes, &held[count])) == 0) count++;
    printf("again %d then %d\n", count, result);
}

static void info(void) {
    size_t free_bytes, total, device;
    int count;
    begin();
    must(CALL(cuMemGetInfo_v2, &free_bytes, &total), "info");
    must(CALL(cuDeviceTotalMem_v2, &device, 0), "total");
    must(CALL(cuDeviceGetCount, &count), "count");
    printf("free %zu total %zu device %zu devices %d\n", free_bytes, total, device, count);
}

static void churn(unsigned seed, int rounds) {
    Pointer held[64] = {0};
    begin();
    for (int i = 0; i < rounds; i++) {
        seed = seed * 1103515245 + 12345;
        int at = (seed >> 16) % 64;
        if (held[at]) must(CALL(cuMemFree_v2, held[at]), "free"), held[at] = 0;
        else if (CALL(cuMemAlloc_v2, &held[at], (size_t)((seed >> 8) % 4096 + 1) << 10)) held[at] = 0;
    }
    printf("done\n");
}

static void hold(size_t bytes) {
    Pointer pointer;
    begin();
    must(CALL(cuMemAlloc_v2, &pointer, bytes), "alloc");
    printf("holding\n");
    fflush(stdout);
    getchar();
}

static void forked(size_t bytes) {
    Pointer pointer;
    begin();
    must(CALL(cuMemAlloc_v2, &pointer, bytes), "alloc");
    pid_t child = fork();
    if (child == 0) {
        printf("child\n");
        fflush(stdout);
        getchar();
        _exit(0);
    }
    printf("parent of %d\n", child);
    fflush(stdout);
    raise(SIGKILL);
}

static void contexts(int count) {
    Handle context;
    int result = 0, made = 0;
    must(CALL(cuInit, 0), "cuInit");
    while (made < count && (result = CALL(cuCtxCreate_v2, &context, 0, 0)) == 0) made++;
    printf("contexts %d then %d\n", made, result);
}

static void mapped(size_t bytes) {
    Pointer handle, address;
    struct prop p = {.type = 1, .location = {1, 0}};
    size_t free_bytes, total;
    begin();
    must(CALL(cuMemCreate, &handle, bytes, &p, 0ull), "create");
    must(CALL(cuMemAddressReserve, &address, bytes, (size_t)0, 0ull, 0ull), "reserve");
    must(CALL(cuMemMap, address, bytes, (size_t)0, handle, 0ull), "map");
    must(CALL(cuMemRelease, handle), "release");
    must(CALL(cuMemGetInfo_v2, &free_bytes, &total), "info");
    printf("released and mapped: used %zu\n", total - free_bytes);
    must(CALL(cuMemUnmap, address, bytes), "unmap");
    must(CALL(cuMemGetInfo_v2, &free_bytes, &total), "info");
    printf("unmapped: used %zu\n", total - free_bytes);
}

static Handle function(unsigned long long ns) {
    Handle module, kernel;
    char name[32];
    sprintf(name, "k_%llu", ns);
    must(CALL(cuModuleLoadData, &module, "image"), "module");
    must(CALL(cuModuleGetFunction, &kernel, module, name), "function");
    return kernel;
}

static int launch(const char *how, Handle kernel, Handle graph, Handle stream) {
    if (!strcmp(how, "kernel")) return CALL(cuLaunchKernel, kernel, 128, 1, 1, 256, 1, 1, 0, stream, NULL, NULL);
    if (!strcmp(how, "ptsz")) return CALL(cuLaunchKernel_ptsz, kernel, 2048, 1, 1, 256, 1, 1, 0, stream, NULL, NULL);
    if (!strcmp(how, "cooperative")) return CALL(cuLaunchCooperativeKernel, kernel, 16384, 1, 1, 256, 1, 1, 0, stream, NULL);
    return CALL(cuGraphLaunch, graph, stream);
}

/* share HOW NS SECONDS EVERY: launches for so much device-clock time, with a sync every EVERY launches; where EVERY is
 * negative, with so many launches ahead of the one whose event is waited for. */
static void share(const char *how, unsigned long long ns, double seconds, int every) {
    Handle graph = NULL, exec = NULL, stream, node;
    begin();
    Handle kernel = function(ns);
    must(CALL(cuStreamCreate, &stream, 1), "stream");
    if (!strcmp(how, "graph")) {
        must(CALL(cuStreamBeginCapture_v2, stream, 0), "capture");
        for (int i = 0; i < 10; i++) must(CALL(cuLaunchKernel, kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "captured");
        must(CALL(cuStreamEndCapture, stream, &graph), "end");
        must(CALL(cuGraphInstantiateWithFlags, &exec, graph, 0ull), "instantiate");
    }
    (void)node;
    unsigned long long (*now)(void) = (void *)dlsym(RTLD_DEFAULT, "gyEmulatorNowNs");
    if (now == NULL) now = (void *)dlsym(dlopen(getenv("EMULATOR"), RTLD_NOW), "gyEmulatorNowNs");
    unsigned long long end = now() + (unsigned long long)(seconds * 1e9);
    long done = 0;
    Handle marks[64] = {0};
    while (now() < end) {
        must(launch(how, kernel, exec, stream), "launch");
        if (every > 0) {
            if (++done % every == 0) must(CALL(cuStreamSynchronize, stream), "sync");
            continue;
        }
        Handle *mark = &marks[done++ % -every]; /* as frameworks do: so many launches ahead, and the oldest is waited for */
        if (*mark) must(CALL(cuEventSynchronize, *mark), "event sync");
        else must(CALL(cuEventCreate, mark, 0), "event");
        must(CALL(cuEventRecord, *mark, stream), "record");
    }
    must(CALL(cuStreamSynchronize, stream), "sync");
    printf("launched %ld\n", done);
}

int main(int count, char **words) {
    driver = dlopen(getenv("TENANT_DRIVER") ? getenv("TENANT_DRIVER") : "libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (driver == NULL) {
        printf("%s\n", dlerror());
        return 3;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2) return 3;
    if (!strcmp(words[1], "init")) printf("cuInit %d\n", CALL(cuInit, 0));
    else if (!strcmp(words[1], "info")) info();
    else if (!strcmp(words[1], "fill")) fill(words[2], strtoull(words[3], NULL, 10));
    else if (!strcmp(words[1], "churn")) churn((unsigned)atoi(words[2]), atoi(words[3]));
    else if (!strcmp(words[1], "hold")) hold(strtoull(words[2], NULL, 10));
    else if (!strcmp(words[1], "fork")) forked(strtoull(words[2], NULL, 10));
    else if (!strcmp(words[1], "contexts")) contexts(atoi(words[2]));
    else if (!strcmp(words[1], "mapped")) mapped(strtoull(words[2], NULL, 10));
    else if (!strcmp(words[1], "share")) share(words[2], strtoull(words[3], NULL, 10), atof(words[4]), atoi(words[5]));
    return 0;
}
