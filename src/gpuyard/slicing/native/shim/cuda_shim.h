/* What the parts of the CUDA shim know of each other. */
#pragma once
#include "cuda_names.h"
#include "shim.h"

extern void *gy_real[GY_NAMES]; /* the driver's functions; a name that it lacks has one that says so */
#define REAL(name) ((__typeof__(&name))gy_real[I_##name])

extern int gy_answer; /* 0 when the shim is ready, NOT_PERMITTED when it refused; otherwise nothing was called yet */
enum { GY_UNASKED = -1 };
int gy_start(void);
#define ENTER() do { if (UNLIKELY(gy_answer != OK) && gy_start() != OK) return NOT_PERMITTED; } while (0)

/* cuda_devices.c */
enum { GY_DEVICES = 64 };
extern int8_t gy_cards[GY_DEVICES]; /* 0: not asked yet, -1: not this slice's, else the card's place + 1 */
int gy_find_card(CUdevice device);
static inline int gy_card_of_device(CUdevice device) { /* its place in the slice file, or -1: not this slice's */
    return (unsigned)device < GY_DEVICES && gy_cards[device] > 0 ? gy_cards[device] - 1 : gy_find_card(device);
}
int gy_card_now(void);                  /* of the current context, or -1 */
CUdevice gy_device_of_card(int card);

/* cuda_blocks.c: what this process holds, by the driver's handle */
enum gy_kind { GY_PLAIN, GY_ARRAY, GY_HANDLE, GY_MAPPING, GY_POOL, GY_POOLED, GY_CONTEXT, GY_GRAPH };
struct gy_block {
    uint64_t key; /* 0: free */
    uint64_t bytes;
    uint64_t owner; /* context, pool or handle that it belongs to */
    uint64_t span;  /* of a mapping: bytes of addresses */
    int16_t card;
    uint8_t kind;
    uint32_t references;
};
extern char gy_blocks_busy;
void gy_blocks_contend(void);
static inline void gy_blocks_lock(void) {
    if (UNLIKELY(__atomic_test_and_set(&gy_blocks_busy, __ATOMIC_ACQUIRE))) gy_blocks_contend();
}
static inline void gy_blocks_unlock(void) { __atomic_clear(&gy_blocks_busy, __ATOMIC_RELEASE); }
struct gy_block *gy_block_find(uint64_t key, enum gy_kind kind); /* the four below: with the lock held */
bool gy_block_put(struct gy_block block);
bool gy_block_keep(const struct gy_block *block); /* locks by itself */
void gy_block_remove(struct gy_block *block);
struct gy_block *gy_block_next(struct gy_block *after); /* NULL starts; none may be put or removed between */
bool gy_block_take(uint64_t key, enum gy_kind kind, struct gy_block *out); /* locks by itself */
void gy_blocks_after_fork(void);

/* cuda_pools.c */
extern bool gy_pools_used; /* whether this process ever used a pool */
void gy_pools_settle(int card); /* gives back what the driver gave back; with the blocks' lock not held */
void gy_pool_settle(uint64_t pool, int card);

/* cuda_contexts.c */
void gy_context_gone(CUcontext context); /* all that it held is given back */

/* cuda_clock.c: a card's virtual clock and the slice's tokens on it. Pure in `now`, a moment in nanoseconds. */
struct gy_account { struct gy_card_clock *clock; struct gy_clock_tenant *tenant; uint32_t ppm, mode; uint64_t turn_ns; };
bool gy_account_open(struct gy_account *account, const struct gy_slice_card *card, uint64_t now);
uint64_t gy_account_busy(struct gy_account *account, uint64_t now, uint64_t until); /* returns the virtual moment */
struct gy_work { uint64_t elapsed, first_turn, since_virtual; }; /* device ns; those of a first turn; from when */
uint64_t gy_account_charge(struct gy_account *account, uint64_t now, struct gy_work work, bool in_flight); /* returns the cost */
uint64_t gy_account_wait(struct gy_account *account, uint64_t now, bool in_flight); /* 0: go on; else ask again after so many ns */

/* cuda_gate.c */
extern bool gy_gated; /* whether any card of the slice is limited */
const char *gy_gate_open(void *driver);
bool gy_gate_enter(CUstream stream, bool per_thread);
extern char gy_direct;      /* whether launches need not come here at all */
extern char gy_gate_busy;   /* the lock: held for nanoseconds, except over a wait, when others wait too */
extern CUstream gy_open_stream[2]; /* the open batch's stream, as [per_thread], while more launches fit; else GY_NO_STREAM */
extern unsigned gy_open_room;
#define GY_NO_STREAM ((CUstream)1)
void gy_gate_contend(void);

static inline void gy_gate_lock(void) {
    if (UNLIKELY(__atomic_test_and_set(&gy_gate_busy, __ATOMIC_ACQUIRE))) gy_gate_contend();
}
static inline void gy_gate_unlock(void) { __atomic_clear(&gy_gate_busy, __ATOMIC_RELEASE); }

/* One more launch for the open batch: true with the lock held. The last one is left to the slow way, which closes it. */
static inline bool gy_gate_fast(CUstream stream, bool per_thread) {
    if (UNLIKELY(gy_open_stream[per_thread] != stream)) return false;
    gy_gate_lock();
    if (__builtin_expect(gy_open_stream[per_thread] == stream && gy_open_room > 1, 1)) {
        gy_open_room--;
        return true;
    }
    gy_gate_unlock();
    return false;
}
void gy_gate_left(void);
void gy_gate_before_sync(void);
void gy_gate_after_sync(void);
void gy_gate_forget(void); /* a context went, and the events with it */
void gy_gate_capture(int change);
void gy_gate_after_fork(void);

/* driver functions that the shim calls and does not hook */
CUresult cuCtxGetDevice(CUdevice *);
CUresult cuCtxGetCurrent(CUcontext *);
CUresult cuDeviceGetCount(int *);
CUresult cuDeviceGetUuid_v2(struct gy_uuid *, CUdevice);
CUresult cuDeviceGetUuid(struct gy_uuid *, CUdevice);
CUresult cuDeviceGetDefaultMemPool(CUhandle *, CUdevice);
CUresult cuDeviceGetMemPool(CUhandle *, CUdevice);
CUresult cuDeviceGraphMemTrim(CUdevice);
CUresult cuDeviceGetGraphMemAttribute(CUdevice, int, void *);
CUresult cuMemPoolGetAttribute(CUhandle, int, void *);
CUresult cuGraphGetNodes(CUhandle, CUhandle *, size_t *);
CUresult cuGraphNodeGetType(CUhandle, int *);
CUresult cuGraphMemAllocNodeGetParams(CUhandle, struct gy_mem_node *);
CUresult cuGraphChildGraphNodeGetGraph(CUhandle, CUhandle *);
CUresult cuStreamIsCapturing(CUstream, int *);
CUresult cuStreamIsCapturing_ptsz(CUstream, int *);
CUresult cuThreadExchangeStreamCaptureMode(int *);
CUresult cuEventCreate(CUevent *, unsigned);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventRecord_ptsz(CUevent, CUstream);
CUresult cuEventQuery(CUevent);
CUresult cuEventElapsedTime(float *, CUevent, CUevent);
CUresult cuEventDestroy_v2(CUevent);

/* hooked ones that are called before they are defined */
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuArrayDestroy(CUhandle);
CUresult cuMipmappedArrayDestroy(CUhandle);
CUresult cuMemAllocAsync(CUdeviceptr *, size_t, CUstream);
CUresult cuMemAllocAsync_ptsz(CUdeviceptr *, size_t, CUstream);
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *, size_t, CUhandle, CUstream);
CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *, size_t, CUhandle, CUstream);
CUresult cuMemFreeAsync(CUdeviceptr, CUstream);
CUresult cuMemFreeAsync_ptsz(CUdeviceptr, CUstream);

static inline uint64_t gy_round_up(uint64_t n, uint64_t to) { return n > UINT64_MAX - to ? UINT64_MAX : (n + to - 1) / to * to; }
