/* Events: the moment at which the card got as far as this, to the nanosecond. */
#include "cuda_state.h"

static handle recorder[GY_MAX_CARDS][GY_EMULATOR_MARKS]; /* the event behind a mark */

void gy_event_reuse(uint32_t card, uint64_t mark) {
    handle event = recorder[card][mark % GY_EMULATOR_MARKS];
    recorder[card][mark % GY_EMULATOR_MARKS] = NULL;
    if (!gy_get(event, EVENT) || event->card != card || event->e.settled || event->e.mark + GY_EMULATOR_MARKS != mark) return;
    event->e.at = gy_done_at(gy_lane_if(card), event->e.mark);
    event->e.settled = true;
}

static bool settled(handle event) {
    if (event->e.settled) return true;
    const gy_lane *lane = gy_lane_if(event->card);
    gy_advance(gy_now());
    if (!lane || !gy_done(lane, event->e.mark)) return false;
    event->e.at = gy_done_at(lane, event->e.mark);
    return event->e.settled = true;
}

GY_API CUresult cuEventCreate(handle *answer, unsigned flags) {
    IN_CONTEXT;
    REFUSE_IF(!answer || flags & ~7u || (flags & 4 && !(flags & 2)), INVALID_VALUE);
    *answer = gy_new(EVENT, context->card, context);
    (*answer)->e.flags = flags;
    OUT(CUDA_SUCCESS);
}

static CUresult destroy(const char *function, handle event) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(event, EVENT), INVALID_HANDLE);
    gy_delete(event);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuEventDestroy(handle event) { return destroy(__func__, event); }
GY_API CUresult cuEventDestroy_v2(handle event) { return destroy(__func__, event); }

static CUresult record(const char *function, bool own, handle event, handle given, unsigned flags) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!gy_get(event, EVENT), INVALID_HANDLE);
    REFUSE_IF(flags & ~1u, INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    REFUSE_IF(stream->card != event->card, INVALID_HANDLE);
    if (gy_capturing(stream)) {
        handle node;
        if (flags) { /* recorded by the graph, each time it runs */
            result = gy_capture_node(stream, 7, &node);
            if (!result) node->n.event = event;
            OUT(result);
        }
        event->e.captured = stream;
        OUT(CUDA_SUCCESS);
    }
    result = gy_stream_work(stream, 0);
    REFUSE_IF(result || !gy_get(event, EVENT), result ? result : INVALID_HANDLE);
    event->e.mark = stream->s.marks[(stream->s.count - 1) % STREAM_DEPTH];
    event->e.recorded = true;
    event->e.settled = false;
    event->e.captured = NULL;
    recorder[event->card][event->e.mark % GY_EMULATOR_MARKS] = event;
    OUT(CUDA_SUCCESS);
}

#define cuEventRecord_on(function, own, e, s) record(function, own, e, s, 0)
#define cuEventRecordWithFlags_on(function, own, e, s, f) record(function, own, e, s, f)
BOTH(cuEventRecord, _ptsz, (handle e, handle s), e, s)
BOTH(cuEventRecordWithFlags, _ptsz, (handle e, handle s, unsigned f), e, s, f)

GY_API CUresult cuEventQuery(handle event) {
    IN;
    REFUSE_IF(!gy_get(event, EVENT), INVALID_HANDLE);
    REFUSE_IF(event->e.captured, 907);
    OUT(!event->e.recorded || settled(event) ? CUDA_SUCCESS : NOT_READY);
}

GY_API CUresult cuEventSynchronize(handle event) {
    IN;
    REFUSE_IF(!gy_get(event, EVENT), INVALID_HANDLE);
    REFUSE_IF(event->e.captured, 907);
    if (event->e.recorded && !settled(event)) gy_wait_mark(gy_lane_if(event->card), event->e.mark);
    OUT(CUDA_SUCCESS);
}

static CUresult elapsed(const char *function, float *milliseconds, handle from, handle to) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(from, EVENT) || !gy_get(to, EVENT), INVALID_HANDLE);
    REFUSE_IF(!milliseconds, INVALID_VALUE);
    REFUSE_IF(!from->e.recorded || !to->e.recorded || (from->e.flags | to->e.flags) & 2, INVALID_HANDLE);
    REFUSE_IF(!settled(from) || !settled(to), NOT_READY);
    *milliseconds = (float)((double)(int64_t)(to->e.at - from->e.at) / 1e6);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuEventElapsedTime(float *ms, handle from, handle to) { return elapsed(__func__, ms, from, to); }
GY_API CUresult cuEventElapsedTime_v2(float *ms, handle from, handle to) { return elapsed(__func__, ms, from, to); }
