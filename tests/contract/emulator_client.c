/* A program as a compiler would link it: it opens libcuda.so.1 and does what its first argument says. One line per result. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *handle;
static void *driver;

static void *find(const char *name) {
    void *found = dlsym(driver, name);
    if (!found) fprintf(stderr, "%s is missing\n", name), exit(3);
    return found;
}

#define CALL(name, ...) (((int (*)())find(#name))(__VA_ARGS__))
#define MUST(name, ...) do { int r_ = CALL(name, __VA_ARGS__); if (r_) printf("%s %d\n", #name, r_), exit(2); } while (0)

static uint64_t now(void) { return ((uint64_t (*)(void))find("gyEmulatorNowNs"))(); }

static handle begin(void) {
    handle context;
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    return context;
}

static handle kernel(const char *name) {
    handle module, function;
    MUST(cuModuleLoadData, &module, "anything");
    MUST(cuModuleGetFunction, &function, module, name);
    return function;
}

static void launch(handle function, handle stream) { MUST(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, (void *)0, (void *)0); }

/* share NAME MILLISECONDS: keeps the card busy for so long, and says how many kernels were done by then. */
static void share(const char *name, uint64_t milliseconds) {
    begin();
    handle function = kernel(name);
    uint64_t end = now() + milliseconds * 1000000u, done = 0;
    while (now() < end) {
        for (int i = 0; i < 8; i++) launch(function, NULL);
        MUST(cuCtxSynchronize);
        done += 8;
    }
    printf("%lu\n", (unsigned long)done);
}

/* fill BLOCK: allocates until the card is full, and says how much that was and how it ended. */
static void fill(uint64_t block) {
    begin();
    uint64_t total = 0, address;
    int result;
    while (!(result = CALL(cuMemAlloc_v2, &address, (size_t)block))) total += block;
    printf("%lu %d\n", (unsigned long)total, result);
}

/* hold BYTES: allocates, says so, and waits to be ended. */
static void hold(uint64_t bytes) {
    uint64_t address;
    begin();
    MUST(cuMemAlloc_v2, &address, (size_t)bytes);
    puts("held");
    fflush(stdout);
    for (;;) pause();
}

/* queue: when each of 1,030 launches of a millisecond came back, in microseconds from the first. */
static void queue(void) {
    begin();
    handle function = kernel("k_1000000");
    uint64_t start = now();
    for (int i = 0; i < 1030; i++) {
        launch(function, NULL);
        if (i == 1000 || i == 1023 || i == 1024 || i == 1029) printf("%d %lu\n", i, (unsigned long)((now() - start) / 1000));
    }
}

/* crash NAME: launches work and stops dead in the middle of it, in the middle of a wait. */
static void crash(const char *name) {
    begin();
    launch(kernel(name), NULL);
    puts("launched");
    fflush(stdout);
    CALL(cuCtxSynchronize);
    puts("never");
}

/* churn SEED: allocates and frees at random, of several kinds, until it is ended. */
static void churn(unsigned seed) {
    uint64_t held[64] = {0};
    begin();
    handle function = kernel("k_20000");
    puts("churning");
    fflush(stdout);
    for (;;) {
        uint64_t *one = &held[rand_r(&seed) % 64];
        if (*one) {
            MUST(cuMemFree_v2, *one);
            *one = 0;
        } else if (rand_r(&seed) % 2) {
            CALL(cuMemAlloc_v2, one, (size_t)(rand_r(&seed) % (4 << 20) + 1));
        } else {
            CALL(cuMemAllocAsync, one, (size_t)(rand_r(&seed) % (4 << 20) + 1), (handle)0);
        }
        if (rand_r(&seed) % 16 == 0) launch(function, NULL);
    }
}

static handle shared_function;
static void *work(void *context) {
    MUST(cuCtxSetCurrent, context);
    for (int i = 0; i < 100; i++) {
        launch(shared_function, (handle)2);
        MUST(cuStreamSynchronize, (handle)2);
    }
    return NULL;
}

/* threads: four of them, 100 kernels of a millisecond each, one after the other; how long all of it took, in milliseconds. */
static void threads(void) {
    pthread_t all[4];
    handle context = begin();
    shared_function = kernel("k_1000000");
    uint64_t start = now();
    for (int i = 0; i < 4; i++) pthread_create(&all[i], NULL, work, context);
    for (int i = 0; i < 4; i++) pthread_join(all[i], NULL);
    printf("%lu\n", (unsigned long)((now() - start) / 1000000));
}

/* lend: allocates, writes the handle for other processes, and waits for a line. */
static void lend(void) {
    uint64_t address;
    unsigned char ticket[64];
    begin();
    MUST(cuMemAlloc_v2, &address, (size_t)(64 << 20));
    MUST(cuIpcGetMemHandle, ticket, address);
    for (int i = 0; i < 64; i++) printf("%02x", ticket[i]);
    puts("");
    fflush(stdout);
    getchar();
}

typedef struct { unsigned char bytes[64]; } ticket_t;

/* borrow TICKET: opens what another process lent, and says what came of it. */
static void borrow(const char *text) {
    ticket_t ticket;
    uint64_t address;
    begin();
    for (int i = 0; i < 64; i++) sscanf(text + 2 * i, "%2hhx", &ticket.bytes[i]);
    int (*open)(uint64_t *, ticket_t, unsigned) = (int (*)(uint64_t *, ticket_t, unsigned))find("cuIpcOpenMemHandle_v2");
    int result = open(&address, ticket, 1);
    printf("%d", result);
    if (!result) printf(" %d", CALL(cuMemFree_v2, address));
    for (int i = 0; !result && i < 2; i++) printf(" %d", CALL(cuIpcCloseMemHandle, address));
    puts("");
}

int main(int count, char **words) {
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver || count < 2) return fprintf(stderr, "%s\n", driver ? "what?" : dlerror()), 1;
    if (!strcmp(words[1], "share")) share(words[2], strtoull(words[3], NULL, 10));
    else if (!strcmp(words[1], "fill")) fill(strtoull(words[2], NULL, 10));
    else if (!strcmp(words[1], "hold")) hold(strtoull(words[2], NULL, 10));
    else if (!strcmp(words[1], "queue")) queue();
    else if (!strcmp(words[1], "crash")) crash(words[2]);
    else if (!strcmp(words[1], "churn")) churn((unsigned)atoi(words[2]));
    else if (!strcmp(words[1], "threads")) threads();
    else if (!strcmp(words[1], "lend")) lend();
    else if (!strcmp(words[1], "borrow")) borrow(words[2]);
    else return 1;
    return 0;
}
