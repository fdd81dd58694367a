/* Streams. All work of a process on a card goes through one lane in the order it came in; a stream remembers its own part of
 * it, and takes 1,024 pieces before a launch has to wait, as a channel does. */
#include "cuda_state.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static uint64_t next_id = 1;

CUresult gy_stream(handle context, handle given, bool per_thread, handle *stream) {
    uintptr_t number = (uintptr_t)given;
    if (number <= 2) {
        *stream = number == 2 || (number == 0 && per_thread) ? context->c.per_thread : context->c.legacy;
        return CUDA_SUCCESS;
    }
    if (!gy_get(given, STREAM)) return INVALID_HANDLE;
    *stream = given;
    return CUDA_SUCCESS;
}

static uint64_t depth(void) {
    return gy_here->queue_depth && gy_here->queue_depth < STREAM_DEPTH ? gy_here->queue_depth : STREAM_DEPTH;
}

CUresult gy_stream_work(handle stream, uint64_t work_ns) {
    uint32_t card = stream->card;
    gy_lane *lane = gy_lane_on(card);
    if (!stream->s.marks) stream->s.marks = calloc(STREAM_DEPTH, sizeof *stream->s.marks);
    if (!lane || !stream->s.marks) return OUT_OF_MEMORY;
    while (stream->s.count >= depth() || lane->tail - lane->head >= GY_EMULATOR_MARKS - 1) {
        uint64_t oldest = stream->s.count >= depth() ? stream->s.marks[(stream->s.count - depth()) % STREAM_DEPTH] : lane->head;
        if (gy_done(lane, oldest) && lane->tail - lane->head < GY_EMULATOR_MARKS - 1) break;
        gy_wait_mark(lane, oldest);
        if (!gy_get(stream, STREAM)) return INVALID_HANDLE;
    }
    gy_event_reuse(card, lane->tail);
    stream->s.marks[stream->s.count++ % STREAM_DEPTH] = gy_submit(card, work_ns);
    return CUDA_SUCCESS;
}

bool gy_stream_idle(handle stream) {
    const gy_lane *lane = gy_lane_if(stream->card);
    gy_advance(gy_now());
    if (stream->s.callbacks) return false;
    return !stream->s.count || !lane || gy_done(lane, stream->s.marks[(stream->s.count - 1) % STREAM_DEPTH]);
}

void gy_stream_wait(handle stream) {
    while (!gy_stream_idle(stream)) {
        gy_wait_mark(gy_lane_if(stream->card), stream->s.marks[(stream->s.count - 1) % STREAM_DEPTH]);
        if (!gy_get(stream, STREAM)) return;
        if (!stream->s.callbacks) continue;
        gy_unlock(); /* the callback's own thread is at it */
        sched_yield();
        gy_lock();
        if (!gy_get(stream, STREAM)) return;
    }
}

static CUresult create(const char *function, handle *answer, unsigned flags, int priority) {
    handle context;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!answer || flags & ~1u, INVALID_VALUE);
    *answer = gy_new(STREAM, context->card, context);
    (*answer)->s.flags = flags;
    (*answer)->s.priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    (*answer)->s.id = ++next_id;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuStreamCreate(handle *s, unsigned flags) { return create(__func__, s, flags, 0); }
GY_API CUresult cuStreamCreateWithPriority(handle *s, unsigned flags, int priority) {
    return create(__func__, s, flags, priority);
}

static CUresult destroy(const char *function, handle stream) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(stream, STREAM), INVALID_HANDLE);
    REFUSE_IF(stream->context && (stream == stream->context->c.legacy || stream == stream->context->c.per_thread), INVALID_HANDLE);
    while (stream->s.callbacks) gy_stream_wait(stream);
    gy_delete(stream);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuStreamDestroy(handle stream) { return destroy(__func__, stream); }
GY_API CUresult cuStreamDestroy_v2(handle stream) { return destroy(__func__, stream); }

#define ON_STREAM \
    handle context, stream; \
    TRY(gy_enter_context(function, &context)); \
    CUresult found = gy_stream(context, given, own, &stream); \
    REFUSE_IF(found, found)

static CUresult cuStreamSynchronize_on(const char *function, bool own, handle given) {
    ON_STREAM;
    REFUSE_IF(gy_capturing(stream), gy_capture_broken(stream));
    gy_stream_wait(stream);
    gy_pools_settle(context->card, true);
    OUT(gy_here->cards[context->card].lost ? (CUresult)gy_here->cards[context->card].lost : CUDA_SUCCESS);
}
BOTH(cuStreamSynchronize, _ptsz, (handle s), s)

static CUresult cuStreamQuery_on(const char *function, bool own, handle given) {
    ON_STREAM;
    REFUSE_IF(gy_capturing(stream), gy_capture_broken(stream));
    OUT(gy_stream_idle(stream) ? CUDA_SUCCESS : NOT_READY);
}
BOTH(cuStreamQuery, _ptsz, (handle s), s)

static CUresult cuStreamWaitEvent_on(const char *function, bool own, handle given, handle event, unsigned flags) {
    ON_STREAM;
    REFUSE_IF(!gy_get(event, EVENT), INVALID_HANDLE);
    REFUSE_IF(flags & ~1u, INVALID_VALUE);
    /* In one lane what was recorded before is done before; work on another card is not held back. */
    OUT(event->e.captured ? gy_capture_join(stream, event) : CUDA_SUCCESS);
}
BOTH(cuStreamWaitEvent, _ptsz, (handle s, handle e, unsigned f), s, e, f)

#define QUERY(name, type, value) \
    static CUresult name##_on(const char *function, bool own, handle given, type *answer) { \
        ON_STREAM; \
        REFUSE_IF(!answer, INVALID_VALUE); \
        *answer = (value); \
        OUT(CUDA_SUCCESS); \
    } \
    BOTH(name, _ptsz, (handle s, type *answer), s, answer)

QUERY(cuStreamGetPriority, int, stream->s.priority)
QUERY(cuStreamGetFlags, unsigned, stream->s.flags)
QUERY(cuStreamGetId, unsigned long long, stream->s.id)
QUERY(cuStreamGetCtx, handle, stream->context)
QUERY(cuStreamGetDevice, CUdevice, gy_device_number(stream->card))
QUERY(cuStreamIsCapturing, int, (int)stream->s.capture)
