/* Run inside a lease: takes as much memory by every way, and as much compute by kernels and graphs, as the driver gives, and
 * prints what that was as one line of JSON. It does not know what it should get: whoever asked judges.
 * verify MILLISECONDS: how long each way of computing is tried. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void *handle;
typedef int (*call)();

enum { BLOCKS = 4096, GRAIN = 2 << 20, KERNEL_NS = 200000, LAUNCHES = 32, MULTIPROCESSORS = 16 };

/* Spins for KERNEL_NS by the card's own timer. Its name says so too, for a driver that only emulates it. */
static const char kernel_image[] = ".version 6.0\n.target sm_50\n.address_size 64\n.visible .entry k_200000()\n{\n"
    ".reg .u64 %rd<4>;\n.reg .pred %p;\nmov.u64 %rd1, %globaltimer;\nL:\nmov.u64 %rd2, %globaltimer;\n"
    "sub.u64 %rd3, %rd2, %rd1;\nsetp.lt.u64 %p, %rd3, 200000;\n@%p bra L;\nret;\n}\n";

static handle driver;
static int missing(void) { return 500; }

static call find(const char *name) {
    call found = (call)dlsym(driver, name);
    return found ? found : (call)missing;
}
#define CALL(name, ...) find(#name)(__VA_ARGS__)

static void fail(const char *what, int result) {
    printf("\n{\"error\": \"%s: %d\"}\n", what, result); /* a line of its own: others may have begun one */
    exit(1);
}
#define MUST(name, ...) do { int r_ = CALL(name, __VA_ARGS__); if (r_) fail(#name, r_); } while (0)

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct prop { int type, handles, location_type, location; void *win; unsigned char flags[8]; };

static int take(const char *way, int device, size_t bytes, uint64_t *out) {
    if (!strcmp(way, "plain")) return CALL(cuMemAlloc_v2, out, bytes);
    if (!strcmp(way, "managed")) return CALL(cuMemAllocManaged, out, bytes, 1);
    if (!strcmp(way, "async")) {
        int result = CALL(cuMemAllocAsync, out, bytes, NULL);
        return result ? result : CALL(cuStreamSynchronize, NULL);
    }
    struct prop wish = {.type = 1, .location_type = 1, .location = device};
    return CALL(cuMemCreate, out, bytes, &wish, 0ull);
}

static void give_back(const char *way, uint64_t block) {
    if (!strcmp(way, "async")) CALL(cuMemFreeAsync, block, NULL);
    else if (!strcmp(way, "physical")) CALL(cuMemRelease, block);
    else CALL(cuMemFree_v2, block);
}

/* The first block is larger than all that is shown; then ever smaller ones, until not even the smallest is given. */
static void try_memory(const char *way, int device, size_t total) {
    static uint64_t blocks[BLOCKS];
    uint64_t granted = 0;
    int count = 0, result = 0, first = -1;
    for (size_t bytes = (total / GRAIN + 1) * GRAIN; bytes >= GRAIN && count < BLOCKS;) {
        result = take(way, device, bytes, &blocks[count]);
        if (first < 0) first = result;
        if (!result) granted += bytes, count++;
        else if (result != 2) break; /* not out of memory: this way is not there */
        else bytes = bytes / 2 / GRAIN * GRAIN;
    }
    while (count) give_back(way, blocks[--count]);
    CALL(cuCtxSynchronize);
    printf("\"%s\": ", way);
    if (result && result != 2 && !granted) printf("null");
    else printf("%lu", (unsigned long)granted);
}

static handle stream, graph;

static int by_kernels(handle kernel) {
    for (int i = 0; i < LAUNCHES; i++) {
        int result = CALL(cuLaunchKernel, kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
        if (result) return result;
    }
    return 0;
}

static int by_graph(handle kernel) {
    if (!graph) {
        handle made;
        int result = CALL(cuStreamBeginCapture_v2, stream, 2);
        if (!result) result = by_kernels(kernel);
        if (!result) result = CALL(cuStreamEndCapture, stream, &made);
        if (!result) result = CALL(cuGraphInstantiateWithFlags, &graph, made, 0ull);
        if (result) return result;
    }
    return CALL(cuGraphLaunch, graph, stream);
}

/* Parts per million of the card's time; null where this way is not there. A tenth of the time first goes unmeasured: what
 * was saved up before is spent then. */
static void try_compute(const char *way, handle kernel, int (*launch)(handle), uint64_t ns) {
    uint64_t begun = now_ns(), from = 0, done = 0, now = begun;
    int result = 0;
    while (!result && (now = now_ns()) - begun < ns + ns / 10) {
        if (!from && now - begun >= ns / 10) from = now, done = 0;
        result = launch(kernel);
        if (!result) result = CALL(cuStreamSynchronize, stream);
        done += LAUNCHES;
    }
    printf("\"%s\": ", way);
    if (result || !from) printf("null");
    else printf("%lu", (unsigned long)((double)done * KERNEL_NS * 1e6 / (double)(now_ns() - from)));
}

static void try_card(int device, uint64_t ns) {
    unsigned char uuid[16];
    size_t left, total;
    int multiprocessors = 0;
    handle context, module, kernel;
    const char *ways[] = {"plain", "managed", "async", "physical"};
    MUST(cuDeviceGetUuid, uuid, device);
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    MUST(cuMemGetInfo_v2, &left, &total);
    printf("%s{\"uuid\": \"GPU-", device ? ", " : "");
    for (int i = 0; i < 16; i++) printf(i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
    CALL(cuDeviceGetAttribute, &multiprocessors, MULTIPROCESSORS, device);
    printf("\", \"multiprocessors\": %d, \"shown_bytes\": %zu, \"free_bytes\": %zu, \"granted_bytes\": {", multiprocessors, total, left);
    for (int i = 0; i < 4; i++) printf(i ? ", " : ""), try_memory(ways[i], device, total);
    printf("}, \"measured_ppm\": {");
    int result = CALL(cuModuleLoadData, &module, kernel_image);
    if (!result) result = CALL(cuModuleGetFunction, &kernel, module, "k_200000");
    if (!result) result = CALL(cuStreamCreate, &stream, 1);
    if (!result) try_compute("kernels", kernel, by_kernels, ns), printf(", "), try_compute("graphs", kernel, by_graph, ns);
    printf("}}");
    graph = NULL;
    CALL(cuDevicePrimaryCtxRelease_v2, device);
}

int main(int count, char **words) {
    uint64_t ns = (count > 1 ? strtoull(words[1], NULL, 10) : 2000) * 1000000u;
    int devices = 0;
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) fail("libcuda.so.1", 0);
    MUST(cuInit, 0);
    MUST(cuDeviceGetCount, &devices);
    printf("{\"cards\": [");
    for (int device = 0; device < devices; device++) try_card(device, ns);
    printf("]}\n");
    return 0;
}
