/* What this process holds: an open-addressing table by handle, so that a free costs the same however much is held. */
#include "cuda_shim.h"

char gy_blocks_busy;
static struct gy_block *table;
static size_t room, count; /* room is a power of two; never more than a quarter is taken */

void gy_contend(char *busy) {
    while (__atomic_test_and_set(busy, __ATOMIC_ACQUIRE)) sched_yield();
}

static size_t home_of(uint64_t key, unsigned kind) { return ((key ^ kind) * 0x9E3779B97F4A7C15u >> 20) & (room - 1); }

static __attribute__((noinline)) bool grow(void) {
    struct gy_block *old = table, *end = table + room, *fresh = calloc(room ? room * 2 : 256, sizeof *fresh);
    if (fresh == NULL) return false;
    table = fresh;
    room = room ? room * 2 : 256;
    count = 0;
    for (struct gy_block *block = old; block < end; block++)
        if (block->key) gy_block_put(block);
    free(old);
    return true;
}

struct gy_block *gy_block_find(uint64_t key, enum gy_kind kind) {
    if (UNLIKELY(room == 0 || key == 0)) return NULL;
    for (size_t at = home_of(key, kind); table[at].key; at = (at + 1) & (room - 1))
        if (table[at].key == key && table[at].kind == kind) return &table[at];
    return NULL;
}

bool gy_block_put(const struct gy_block *block) {
    if (UNLIKELY(block->key == 0 || (4 * count >= room && !grow()))) return false;
    size_t at = home_of(block->key, block->kind);
    while (table[at].key && !(table[at].key == block->key && table[at].kind == block->kind)) at = (at + 1) & (room - 1);
    count += table[at].key == 0;
    table[at] = *block;
    return true;
}

#define FLAT __attribute__((flatten)) /* the ways that every allocation takes: with what they call, in one piece */

FLAT bool gy_block_keep(const struct gy_block *block) {
    gy_hold(&gy_blocks_busy);
    bool kept = gy_block_put(block);
    gy_let_go(&gy_blocks_busy);
    return kept;
}

void gy_block_remove(struct gy_block *block) {
    size_t hole = (size_t)(block - table);
    for (size_t at = (hole + 1) & (room - 1); table[at].key; at = (at + 1) & (room - 1)) {
        size_t home = home_of(table[at].key, table[at].kind);
        if (((at - home) & (room - 1)) >= ((at - hole) & (room - 1))) { /* it may move back without passing its home */
            table[hole] = table[at];
            hole = at;
        }
    }
    table[hole].key = 0;
    count--;
}

struct gy_block *gy_block_next(struct gy_block *after) {
    for (size_t at = after == NULL ? 0 : (size_t)(after - table) + 1; at < room; at++)
        if (table[at].key) return &table[at];
    return NULL;
}

FLAT bool gy_block_take(uint64_t key, enum gy_kind kind, struct gy_block *out) {
    gy_hold(&gy_blocks_busy);
    struct gy_block *block = gy_block_find(key, kind);
    if (block != NULL) {
        *out = *block;
        gy_block_remove(block);
    }
    gy_let_go(&gy_blocks_busy);
    return block != NULL;
}

void gy_blocks_after_fork(void) {
    gy_let_go(&gy_blocks_busy);
    free(table);
    table = NULL;
    room = count = 0;
}
