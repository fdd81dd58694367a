/* What the parts of the shim know of each other. */
#pragma once
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h> /* and with it sched.h and time.h */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* common_start.c: the way in. The table behind the trampolines holds the driver's functions; a name that it lacks has one
 * that says so. */
extern void *gy_real[];
#define REAL(name) ((__typeof__(&name))gy_real[I_##name])
#define REAL_FOR(name, per_thread) ((per_thread) ? REAL(name##_ptsz) : REAL(name))
extern int gy_answer; /* 0 when the shim is ready; otherwise it refused, or nothing was called yet */
int gy_start(void);
/* A function of ours: it is called by a generated one of the driver's name, which refuses before it where the shim refused. */
#define OURS(name) int gy_ours_##name
#define ENTER() do { if (UNLIKELY(gy_answer != 0) && gy_start() != 0) return gy_library.refused; } while (0)
extern const char *const gy_names[];
extern const uint8_t gy_denied[];
int gy_lacking(void);

struct gy_library { /* what the two libraries differ in */
    const char *api, *driver;
    int refused, lacking; /* results */
    bool holds;           /* whether programs hold memory through it, and need a place in the ledger */
    const char *(*open)(void *driver); /* NULL, or why it is refused */
};
extern const struct gy_library gy_library;

/* common_slice.c: the slice file, read once. */
extern struct gy_slice_file gy_slice;
const char *gy_slice_read(void); /* NULL, or why it is refused */
uint64_t gy_fnv(const void *bytes, size_t count);
uint64_t gy_monotonic_ns(void);

/* common_ledger.c: what all processes of the slice hold. A card is its place in the slice file. */
extern struct gy_ledger *gy_ledger;
const char *gy_ledger_open(bool write); /* NULL, or why it is refused */
bool gy_reserve(int card, uint64_t bytes);
void gy_release(int card, uint64_t bytes);
void gy_mask(int card, size_t *total, size_t *free); /* makes the card's figures the slice's */
bool gy_was_exported(uint64_t hash, bool add); /* whether a process of the slice gave this handle out */
void gy_ledger_after_fork(void);
void *gy_map_shared(const char *path, size_t size, uint64_t magic, const char **why);
