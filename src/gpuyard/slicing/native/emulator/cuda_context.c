/* Contexts: each takes its overhead of the card when it is made, and gives it back with all that was in it. */
#include "cuda_state.h"
#include <string.h>

static handle primaries[GY_MAX_CARDS];
static uint64_t next_id = 1;

static CUresult make(uint32_t card, unsigned flags, handle *made) {
    gy_card *at = &gy_here->cards[card];
    if (at->lost) return (CUresult)at->lost;
    if (at->unplugged) return NO_DEVICE;
    if (!gy_mig_may_compute(card)) return NO_DEVICE;
    if (!gy_may_open(card)) return DEVICE_UNAVAILABLE;
    if (!gy_mps_placed(card)) return INVALID_RESOURCE_CONFIGURATION;
    if (!gy_reserve(card, at->context_bytes)) return OUT_OF_MEMORY;
    gy_lane_on(card)->contexts++;
    *made = gy_new(CONTEXT, card, NULL);
    (*made)->c.id = (uint32_t)next_id++;
    (*made)->c.flags = flags;
    (*made)->c.api = gy_here->cuda_version >= 13000 ? 13000 : 3020;
    (*made)->c.limits[0] = 1024;      /* stack */
    (*made)->c.limits[1] = 1 << 20;   /* printf */
    (*made)->c.limits[2] = 8 << 20;   /* device heap */
    (*made)->c.legacy = gy_new(STREAM, card, *made);
    (*made)->c.per_thread = gy_new(STREAM, card, *made);
    return CUDA_SUCCESS;
}

static void clear(handle object, void *context) {
    if (object->context != context || object->kind == CONTEXT) return;
    if (object->kind == BLOCK) gy_block_free(object);
    else if (object->kind == ARRAY && !object->a.borrowed) gy_give_back(object->card, object->a.size), gy_delete(object);
    else if (object->kind == GRAPH || object->kind == NODE || object->kind == EXECUTABLE) return;
    else gy_delete(object);
}

static void unmake(handle context) {
    gy_stream_wait(context->c.legacy);
    gy_each(BLOCK, clear, context);
    gy_each(ANY, clear, context);
    gy_lane_if(context->card)->contexts--;
    gy_pools_settle(context->card, gy_lane_if(context->card)->contexts > 0);
    gy_give_back(context->card, gy_here->cards[context->card].context_bytes);
    gy_delete(context);
}

static handle primary_of(uint32_t card) {
    if (!gy_get(primaries[card], CONTEXT)) primaries[card] = NULL; /* a fork lost it */
    return primaries[card];
}

handle gy_primary(uint32_t card) { return primary_of(card); }

CUresult gy_use_primary(uint32_t card, handle *context) {
    if (!primary_of(card)) {
        TRY(make(card, 0, &primaries[card]));
        primaries[card]->c.primary = 1;
    }
    primaries[card]->c.retained++;
    *context = primaries[card];
    return CUDA_SUCCESS;
}

#define OF_CARD \
    IN; \
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE); \
    uint32_t card = gy_visible[device]

GY_API CUresult cuDevicePrimaryCtxRetain(handle *context, CUdevice device) {
    OF_CARD;
    REFUSE_IF(!context, INVALID_VALUE);
    OUT(gy_use_primary(card, context));
}

static CUresult release(const char *function, CUdevice device, bool all) {
    TRY(gy_enter(function));
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    handle context = primary_of(gy_visible[device]);
    REFUSE_IF(!context, all ? CUDA_SUCCESS : INVALID_CONTEXT);
    if (!all && --context->c.retained) OUT(CUDA_SUCCESS);
    primaries[context->card] = NULL;
    unmake(context);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return release(__func__, device, false); }
GY_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return release(__func__, device, false); }
GY_API CUresult cuDevicePrimaryCtxReset(CUdevice device) { return release(__func__, device, true); }
GY_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) { return release(__func__, device, true); }

static CUresult set_flags(const char *function, CUdevice device, unsigned flags) {
    TRY(gy_enter(function));
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    if (primary_of(gy_visible[device])) primary_of(gy_visible[device])->c.flags = flags;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) { return set_flags(__func__, device, flags); }
GY_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) { return set_flags(__func__, device, flags); }

GY_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    OF_CARD;
    REFUSE_IF(!flags || !active, INVALID_VALUE);
    *active = primary_of(card) != NULL;
    *flags = primary_of(card) ? primary_of(card)->c.flags : 0;
    OUT(CUDA_SUCCESS);
}

static CUresult create(const char *function, handle *context, unsigned flags, CUdevice device) {
    TRY(gy_enter(function));
    REFUSE_IF(!context || flags & ~0xffu, INVALID_VALUE);
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    CUresult result = make(gy_visible[device], flags, context);
    if (!result) gy_push(*context);
    OUT(result);
}

GY_API CUresult cuCtxCreate(handle *c, unsigned f, CUdevice d) { return create(__func__, c, f, d); }
GY_API CUresult cuCtxCreate_v2(handle *c, unsigned f, CUdevice d) { return create(__func__, c, f, d); }
GY_API CUresult cuCtxCreate_v3(handle *c, void *affinity, int count, unsigned f, CUdevice d) {
    (void)affinity, (void)count;
    return create(__func__, c, f, d);
}
GY_API CUresult cuCtxCreate_v4(handle *c, void *parameters, unsigned f, CUdevice d) {
    (void)parameters;
    return create(__func__, c, f, d);
}

static CUresult destroy(const char *function, handle context) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(context, CONTEXT) || context->c.primary, INVALID_CONTEXT);
    if (gy_current() == context) gy_pop();
    unmake(context);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxDestroy(handle context) { return destroy(__func__, context); }
GY_API CUresult cuCtxDestroy_v2(handle context) { return destroy(__func__, context); }
GY_API CUresult cuCtxDetach(handle context) { return destroy(__func__, context); }

GY_API CUresult cuCtxGetCurrent(handle *context) {
    IN;
    REFUSE_IF(!context, INVALID_VALUE);
    *context = gy_current();
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxSetCurrent(handle context) {
    IN;
    REFUSE_IF(context && !gy_get(context, CONTEXT), INVALID_CONTEXT);
    gy_set_current(context);
    OUT(CUDA_SUCCESS);
}

static CUresult push(const char *function, handle context) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(context, CONTEXT), INVALID_CONTEXT);
    gy_push(context);
    OUT(CUDA_SUCCESS);
}

static CUresult pop(const char *function, handle *answer) {
    TRY(gy_enter(function));
    handle context = gy_current();
    REFUSE_IF(!context, INVALID_CONTEXT);
    gy_pop();
    if (answer) *answer = context;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxPushCurrent(handle context) { return push(__func__, context); }
GY_API CUresult cuCtxPushCurrent_v2(handle context) { return push(__func__, context); }
GY_API CUresult cuCtxPopCurrent(handle *context) { return pop(__func__, context); }
GY_API CUresult cuCtxPopCurrent_v2(handle *context) { return pop(__func__, context); }

GY_API CUresult cuCtxGetDevice(CUdevice *device) {
    IN_CONTEXT;
    REFUSE_IF(!device, INVALID_VALUE);
    *device = gy_device_number(context->card);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetDevice_v2(CUdevice *device, handle of) {
    IN;
    if (!of) of = gy_current();
    REFUSE_IF(!gy_get(of, CONTEXT), INVALID_CONTEXT);
    REFUSE_IF(!device, INVALID_VALUE);
    *device = gy_device_number(of->card);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetFlags(unsigned *flags) {
    IN_CONTEXT;
    REFUSE_IF(!flags, INVALID_VALUE);
    *flags = context->c.flags;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetId(handle of, unsigned long long *id) {
    IN;
    if (!of) of = gy_current();
    REFUSE_IF(!gy_get(of, CONTEXT), INVALID_CONTEXT);
    REFUSE_IF(!id, INVALID_VALUE);
    *id = of->c.id;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetApiVersion(handle of, unsigned *version) {
    IN;
    if (!of) of = gy_current();
    REFUSE_IF(!gy_get(of, CONTEXT), INVALID_CONTEXT);
    REFUSE_IF(!version, INVALID_VALUE);
    *version = of->c.api;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxSetLimit(int limit, size_t value) {
    IN_CONTEXT;
    REFUSE_IF(limit < 0 || limit >= 16, INVALID_VALUE);
    context->c.limits[limit] = value;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetLimit(size_t *value, int limit) {
    IN_CONTEXT;
    REFUSE_IF(!value || limit < 0 || limit >= 16, INVALID_VALUE);
    *value = context->c.limits[limit];
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    IN_CONTEXT;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    OUT(CUDA_SUCCESS);
}

static void wait_stream(handle stream, void *context) {
    if (stream->context == context) gy_stream_wait(stream);
}

static CUresult synchronize(handle context) {
    TRY(gy_capture_forbidden());
    gy_each(STREAM, wait_stream, context);
    gy_pools_settle(context->card, true);
    return CUDA_SUCCESS;
}

GY_API CUresult cuCtxSynchronize(void) {
    IN_CONTEXT;
    OUT(synchronize(context));
}

GY_API CUresult cuCtxSynchronize_v2(handle of) {
    IN;
    if (!of) of = gy_current();
    REFUSE_IF(!gy_get(of, CONTEXT), INVALID_CONTEXT);
    OUT(synchronize(of));
}

GY_API CUresult cuCtxSetCacheConfig(int config) {
    (void)config;
    IN_CONTEXT;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuCtxEnablePeerAccess(handle peer, unsigned flags) {
    IN_CONTEXT;
    REFUSE_IF(!gy_get(peer, CONTEXT) || peer == context, INVALID_CONTEXT);
    OUT(flags ? INVALID_VALUE : CUDA_SUCCESS);
}
