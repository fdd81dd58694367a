/* Host functions in streams: one thread of the process calls them, each as soon as the work before it is done. */
#include "cuda_state.h"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct callback { void (*call)(void *); void *data; handle stream; uint64_t mark; uint32_t card; struct callback *next; };

static struct callback *first, *last;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static pid_t started;

static void *serve(void *unused) {
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&guard);
        while (!first) pthread_cond_wait(&more, &guard);
        struct callback *next = first;
        first = next->next;
        if (!first) last = NULL;
        pthread_mutex_unlock(&guard);
        gy_lock();
        const gy_lane *lane = gy_lane_if(next->card);
        if (lane) gy_wait_mark(lane, next->mark);
        gy_step_out();
        gy_unlock();
        next->call(next->data);
        gy_lock();
        if (gy_get(next->stream, STREAM)) next->stream->s.callbacks--;
        gy_unlock();
        free(next);
    }
    return NULL;
}

CUresult gy_stream_callback(handle stream, void (*call)(void *), void *data) {
    pthread_t thread;
    TRY(gy_stream_work(stream, 0));
    struct callback *made = calloc(1, sizeof *made);
    if (!made) return OUT_OF_MEMORY;
    *made = (struct callback){call, data, stream, stream->s.marks[(stream->s.count - 1) % STREAM_DEPTH], stream->card, NULL};
    stream->s.callbacks++;
    pthread_mutex_lock(&guard);
    if (started != getpid()) {
        first = last = NULL;
        if (pthread_create(&thread, NULL, serve, NULL) == 0) pthread_detach(thread), started = getpid();
    }
    if (last) last->next = made;
    else first = made;
    last = made;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&guard);
    return CUDA_SUCCESS;
}

static CUresult launch(const char *function, bool own, handle given, void (*call)(void *), void *data) {
    handle context, stream, node;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!call, INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    if (!result && gy_capturing(stream)) {
        result = gy_capture_node(stream, 3, &node);
        if (!result) node->n.parameters.host.call = call, node->n.parameters.host.data = data;
    } else if (!result) {
        result = gy_stream_callback(stream, call, data);
    }
    OUT(result);
}

#define cuLaunchHostFunc_on(function, own, s, f, d) launch(function, own, s, f, d)
#define cuLaunchHostFunc_v2_on(function, own, s, f, d, mode) ((void)(mode), launch(function, own, s, f, d))
BOTH(cuLaunchHostFunc, _ptsz, (handle s, void (*f)(void *), void *d), s, f, d)
BOTH(cuLaunchHostFunc_v2, _ptsz, (handle s, void (*f)(void *), void *d, unsigned mode), s, f, d, mode)
