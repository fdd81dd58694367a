/* What the parts of the shim know of each other. */
#pragma once
#include <stdbool.h>

#include "cuda_types.h"
#include "layout.h"

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

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
uint64_t gy_used(int card);
void gy_exported(uint64_t hash);
bool gy_was_exported(uint64_t hash);
bool gy_lock(void *mutex, uint64_t patience_ns); /* a robust mutex of a shared file; false where it cannot be had */
void gy_unlock(void *mutex);
void *gy_map_shared(const char *path, size_t size, uint64_t magic, const char **why);
