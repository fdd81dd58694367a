/* Stream capture: what is launched into a capturing stream becomes nodes of a graph, and nothing runs. */
#include "cuda_state.h"
#include <sys/syscall.h>
#include <unistd.h>

enum { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };
enum { NONE = 0, ACTIVE = 1, INVALIDATED = 2 };

static uint64_t next_id = 1;
static uint32_t open_captures;
static __thread int mode_of_thread = GLOBAL;

static int thread_id(void) { return (int)syscall(SYS_gettid); }

bool gy_capturing(handle stream) { return stream->s.capture != NONE; }

struct scan { handle graph; bool forbidden; int thread; };

static void invalidate(handle stream, void *with) {
    struct scan *scan = with;
    if (stream->s.capture && stream->s.graph == scan->graph) stream->s.capture = INVALIDATED;
}

static void forbid(handle stream, void *with) {
    struct scan *scan = with;
    if (!stream->s.capture || (int)stream->s.mode == RELAXED) return;
    bool own = stream->s.thread == scan->thread;
    if (!own && ((int)stream->s.mode == THREAD_LOCAL || mode_of_thread == THREAD_LOCAL)) return;
    scan->forbidden = true;
    stream->s.capture = INVALIDATED;
}

CUresult gy_capture_forbidden(void) {
    if (!open_captures || mode_of_thread == RELAXED) return CUDA_SUCCESS;
    struct scan scan = {.thread = thread_id()};
    gy_each(STREAM, forbid, &scan);
    return scan.forbidden ? STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult gy_capture_broken(handle stream) {
    struct scan scan = {.graph = stream->s.graph};
    bool already = stream->s.capture == INVALIDATED;
    gy_each(STREAM, invalidate, &scan);
    return already ? STREAM_CAPTURE_INVALIDATED : STREAM_CAPTURE_UNSUPPORTED;
}

CUresult gy_capture_node(handle stream, int type, handle *node) {
    if (stream->s.capture == INVALIDATED) return STREAM_CAPTURE_INVALIDATED;
    *node = gy_node_add(stream->s.graph, type, &stream->s.last, stream->s.last != NULL);
    stream->s.last = *node;
    return CUDA_SUCCESS;
}

CUresult gy_capture_join(handle stream, handle event) {
    handle origin = event->e.captured;
    if (!gy_get(origin, STREAM) || !origin->s.capture) return CUDA_SUCCESS; /* that capture is over */
    if (stream->s.capture && stream->s.graph != origin->s.graph) return 905; /* two captures may not merge */
    if (stream->context && stream == stream->context->c.legacy) return 906;  /* implicit */
    if (!stream->s.capture) {
        stream->s.capture = origin->s.capture;
        stream->s.mode = origin->s.mode;
        stream->s.thread = origin->s.thread;
        stream->s.capture_id = origin->s.capture_id;
        stream->s.graph = origin->s.graph;
    }
    stream->s.last = origin->s.last;
    return CUDA_SUCCESS;
}

static CUresult begin(const char *function, bool own, handle given, handle graph, int mode) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(mode < 0 || mode > 2 || (graph && !gy_get(graph, GRAPH)), INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    REFUSE_IF(stream == context->c.legacy, STREAM_CAPTURE_UNSUPPORTED);
    REFUSE_IF(stream->s.capture, ILLEGAL_STATE);
    stream->s.capture = ACTIVE;
    stream->s.mode = (uint32_t)mode;
    stream->s.thread = thread_id();
    stream->s.capture_id = next_id++;
    stream->s.graph = graph ? graph : gy_graph_new(context);
    stream->s.last = NULL;
    open_captures++;
    OUT(CUDA_SUCCESS);
}

#define cuStreamBeginCapture_on(function, own, s) begin(function, own, s, NULL, GLOBAL)
#define cuStreamBeginCapture_v2_on(function, own, s, m) begin(function, own, s, NULL, m)
#define cuStreamBeginCaptureToGraph_on(function, own, s, g, m) (g ? begin(function, own, s, g, m) : INVALID_VALUE)
BOTH(cuStreamBeginCapture, _ptsz, (handle s), s)
BOTH(cuStreamBeginCapture_v2, _ptsz, (handle s, int mode), s, mode)
#define UNUSED_EDGES (void)after, (void)edges, (void)count
GY_API CUresult cuStreamBeginCaptureToGraph(handle s, handle g, const handle *after, const void *edges, size_t count, int mode) {
    UNUSED_EDGES;
    return cuStreamBeginCaptureToGraph_on(__func__, false, s, g, mode);
}
GY_API CUresult cuStreamBeginCaptureToGraph_ptsz(handle s, handle g, const handle *after, const void *edges, size_t count,
                                                 int mode) {
    UNUSED_EDGES;
    return cuStreamBeginCaptureToGraph_on(__func__, true, s, g, mode);
}

static void finish(handle stream, void *graph) {
    if (stream->s.capture && stream->s.graph == graph) {
        stream->s.capture = NONE;
        stream->s.graph = stream->s.last = NULL;
    }
}

static CUresult cuStreamEndCapture_on(const char *function, bool own, handle given, handle *answer) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    REFUSE_IF(!answer, INVALID_VALUE);
    REFUSE_IF(!stream->s.capture, ILLEGAL_STATE);
    REFUSE_IF((int)stream->s.mode != RELAXED && stream->s.thread != thread_id(), 908); /* begun by another thread */
    bool broken = stream->s.capture == INVALIDATED;
    handle graph = stream->s.graph;
    gy_each(STREAM, finish, graph);
    open_captures--;
    *answer = broken ? NULL : graph;
    if (broken) gy_graph_delete(graph);
    OUT(broken ? STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS);
}
BOTH(cuStreamEndCapture, _ptsz, (handle s, handle *graph), s, graph)

static CUresult information(const char *function, bool own, handle given, int *status, uint64_t *id, handle *graph,
                            const handle **after, const void **edges, size_t *count) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    CUresult result = gy_stream(context, given, own, &stream);
    REFUSE_IF(result, result);
    REFUSE_IF(!status, INVALID_VALUE);
    *status = (int)stream->s.capture;
    if (stream->s.capture == ACTIVE) {
        if (id) *id = stream->s.capture_id;
        if (graph) *graph = stream->s.graph;
        if (after) *after = stream->s.last ? (const handle *)&stream->s.last : NULL;
        if (edges) *edges = NULL;
        if (count) *count = stream->s.last != NULL;
    }
    OUT(CUDA_SUCCESS);
}

#define cuStreamGetCaptureInfo_on(function, own, s, st, id) information(function, own, s, st, id, NULL, NULL, NULL, NULL)
#define cuStreamGetCaptureInfo_v2_on(function, own, s, st, id, g, a, c) information(function, own, s, st, id, g, a, NULL, c)
#define cuStreamGetCaptureInfo_v3_on information
BOTH(cuStreamGetCaptureInfo, _ptsz, (handle s, int *st, uint64_t *id), s, st, id)
BOTH(cuStreamGetCaptureInfo_v2, _ptsz, (handle s, int *st, uint64_t *id, handle *g, const handle **a, size_t *c), s, st, id, g, a, c)
BOTH(cuStreamGetCaptureInfo_v3, _ptsz, (handle s, int *st, uint64_t *id, handle *g, const handle **a, const void **e, size_t *c),
     s, st, id, g, a, e, c)

GY_API CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
    if (!mode || *mode < 0 || *mode > 2) return INVALID_VALUE;
    int before = mode_of_thread;
    mode_of_thread = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
