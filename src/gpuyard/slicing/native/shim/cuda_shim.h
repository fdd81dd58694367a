/* What the parts of the CUDA shim know of each other. */
#pragma once
#include "cuda_types.h"
#include "names.h"
#include "calls.h"

/* cuda_devices.c */
enum { GY_DEVICES = 64 };
extern int8_t gy_cards[GY_DEVICES]; /* 0: not asked yet, -1: not this slice's, else the card's place + 1 */
int gy_find_card(CUdevice device);
static inline int gy_card_of_device(CUdevice device) { /* its place in the slice file, or -1: not this slice's */
    return (unsigned)device < GY_DEVICES && gy_cards[device] > 0 ? gy_cards[device] - 1 : gy_find_card(device);
}
int gy_card_now(void); /* of the current context, or -1 */
CUdevice gy_device_of_card(int card);

/* A lock that is held for nanoseconds, or over a wait that others share. */
void gy_contend(char *busy);
static inline void gy_hold(char *busy) {
    if (UNLIKELY(__atomic_test_and_set(busy, __ATOMIC_ACQUIRE))) gy_contend(busy);
}
static inline void gy_let_go(char *busy) { __atomic_clear(busy, __ATOMIC_RELEASE); }

/* cuda_blocks.c: what this process holds, by the driver's handle */
enum gy_kind { GY_PLAIN, GY_ARRAY, GY_HANDLE, GY_MAPPING, GY_POOL, GY_POOLED, GY_CONTEXT, GY_GRAPH };
struct gy_block {
    uint64_t key, bytes; /* key 0: free; bytes of memory, of a mapping of addresses */
    uint64_t owner;      /* context, pool or handle that it belongs to */
    uint32_t references;
    int16_t card;
    uint8_t kind;
};
extern char gy_blocks_busy;
struct gy_block *gy_block_find(uint64_t key, enum gy_kind kind); /* the four below: with the lock held */
bool gy_block_put(const struct gy_block *block);
void gy_block_remove(struct gy_block *block);
struct gy_block *gy_block_next(struct gy_block *after); /* NULL starts; none may be put or removed between */
bool gy_block_keep(const struct gy_block *block);       /* this and the next: lock by themselves */
bool gy_block_take(uint64_t key, enum gy_kind kind, struct gy_block *out);

/* cuda_pools.c */
extern pthread_mutex_t gy_growing; /* held over driver calls whose effect on memory is looked at */
extern bool gy_pools_used;      /* whether this process ever used a pool */
void gy_pools_settle(int card); /* gives back what the driver gave back; with the blocks' lock not held */
void gy_pool_settle(uint64_t pool, int card);

/* Reserves before the driver is asked; where the slice is full, what pools gave back meanwhile may make room. */
static inline CUresult gy_grant(int card, uint64_t bytes) {
    if (UNLIKELY(card < 0)) return NOT_PERMITTED;
    if (gy_reserve(card, bytes)) return OK;
    gy_pools_settle(card);
    return gy_reserve(card, bytes) ? OK : OUT_OF_MEMORY;
}

/* What the driver then answered: remembered, or given back. `undo` is for a process that has no memory to remember it in. */
static inline CUresult gy_granted(CUresult result, const struct gy_block *block, CUresult (*undo)(uint64_t)) {
    if (UNLIKELY(block->card < 0)) return result;
    if (result == OK) {
        if (gy_block_keep(block) || undo == NULL) return OK;
        undo(block->key);
        result = OUT_OF_MEMORY;
    }
    gy_release(block->card, block->bytes);
    return result;
}

/* A child has no contexts and holds nothing. */
void gy_blocks_after_fork(void), gy_gate_after_fork(void), gy_contexts_after_fork(void);

/* cuda_clock.c: pure but for the shared file; `now` and all times are nanoseconds of one clock */
struct gy_account { struct gy_card_clock *clock; struct gy_clock_tenant *tenant; uint32_t ppm, mode; uint64_t turn_ns; bool one_at_a_time; };
bool gy_account_open(struct gy_account *account, const struct gy_slice_card *card, uint64_t now);
uint64_t gy_account_busy(struct gy_account *account, uint64_t now, uint64_t until); /* this tenant has work in flight; the virtual moment */
struct gy_work { uint64_t elapsed, first_turn, since_virtual; }; /* device ns; those of a first turn; from when */
uint64_t gy_account_charge(struct gy_account *account, uint64_t now, struct gy_work work, bool in_flight); /* returns the cost */
uint64_t gy_account_wait(struct gy_account *account, uint64_t now, bool in_flight); /* 0: go on; else ask again after so many ns */

/* cuda_gate.c */
extern bool gy_gated; /* whether any card of the slice is limited */
const char *gy_gate_open(void *driver);
bool gy_gate_enter(CUstream stream, bool per_thread);
extern char gy_direct;      /* whether launches need not come here at all */
extern char gy_gate_busy;   /* the lock */
extern CUstream gy_open_stream[2]; /* the open batch's stream, as [per_thread], while more launches fit; else GY_NO_STREAM */
extern unsigned gy_open_room;
#define GY_NO_STREAM ((CUstream)1)

/* One more launch for the open batch: true with the lock held. The last one is left to the slow way, which closes it. */
static inline bool gy_gate_fast(CUstream stream, bool per_thread) {
    if (UNLIKELY(gy_open_stream[per_thread] != stream)) return false;
    gy_hold(&gy_gate_busy);
    if (__builtin_expect(gy_open_stream[per_thread] == stream && gy_open_room > 1, 1)) {
        gy_open_room--;
        return true;
    }
    gy_let_go(&gy_gate_busy);
    return false;
}
void gy_gate_left(void), gy_gate_before_sync(void), gy_gate_after_sync(void);
void gy_gate_forget(void); /* a context went, and the events with it */
void gy_gate_capture(int change);
bool gy_is_capturing(CUstream stream, bool per_thread);

static inline uint64_t gy_round_up(uint64_t n, uint64_t to) { return n > UINT64_MAX - to ? UINT64_MAX : (n + to - 1) / to * to; }
