/* Graphs that run. A launch is one piece of work, as long as all its kernels together. The memory of a graph's allocation nodes
 * is taken at its first launch and stays with it until it is destroyed. */
#include "cuda_state.h"
#include <string.h>

#define CHUNK (32ull << 20)

static struct { uint64_t used, used_high, reserved, reserved_high; } memory[GY_MAX_CARDS];

static CUresult instantiate(const char *function, handle *answer, handle graph, uint64_t flags) {
    TRY(gy_enter(function));
    REFUSE_IF(!answer || !gy_get(graph, GRAPH) || flags & ~15ull, INVALID_VALUE);
    handle made = gy_new(EXECUTABLE, graph->card, graph->context);
    made->x.flags = flags;
    made->x.id = graph->g.id;
    for (handle node = graph->g.nodes; node; node = node->next) {
        handle copy = gy_new(NODE, node->card, node->context);
        copy->n = node->n;
        copy->n.twin = node;
        copy->owner = made;
        if (made->x.last_node) made->x.last_node->next = copy;
        else made->x.nodes = copy;
        made->x.last_node = copy;
        if (node->n.type == 10) made->x.memory += node->n.parameters.allocation.size, made->card = node->card;
    }
    *answer = made;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphInstantiateWithFlags(handle *x, handle g, unsigned long long flags) { return instantiate(__func__, x, g, flags); }

static CUresult instantiate_logged(const char *function, handle *x, handle g, handle *failed, char *log, size_t size) {
    if (failed) *failed = NULL;
    if (log && size) *log = 0;
    return instantiate(function, x, g, 0);
}

GY_API CUresult cuGraphInstantiate(handle *x, handle g, handle *failed, char *log, size_t size) {
    return instantiate_logged(__func__, x, g, failed, log, size);
}
GY_API CUresult cuGraphInstantiate_v2(handle *x, handle g, handle *failed, char *log, size_t size) {
    return instantiate_logged(__func__, x, g, failed, log, size);
}

static CUresult with_parameters(const char *function, handle *x, handle g, instantiate_parameters *wish) {
    if (!wish) return INVALID_VALUE;
    wish->failed_node = NULL;
    CUresult result = instantiate(function, x, g, wish->flags);
    wish->result = result ? 1 : 0;
    return result;
}

GY_API CUresult cuGraphInstantiateWithParams(handle *x, handle g, instantiate_parameters *p) { return with_parameters(__func__, x, g, p); }
GY_API CUresult cuGraphInstantiateWithParams_ptsz(handle *x, handle g, instantiate_parameters *p) {
    return with_parameters(__func__, x, g, p);
}

static CUresult make_resident(handle graph) {
    uint32_t card = graph->card;
    if (graph->x.resident || !graph->x.memory) return CUDA_SUCCESS;
    uint64_t need = memory[card].used + graph->x.memory;
    if (need > memory[card].reserved) {
        uint64_t more = need - memory[card].reserved;
        more += (CHUNK - more % CHUNK) % CHUNK;
        if (!gy_reserve(card, more)) return OUT_OF_MEMORY;
        memory[card].reserved += more;
    }
    memory[card].used = need;
    if (need > memory[card].used_high) memory[card].used_high = need;
    if (memory[card].reserved > memory[card].reserved_high) memory[card].reserved_high = memory[card].reserved;
    graph->x.resident = true;
    return CUDA_SUCCESS;
}

static CUresult run(handle context, handle graph, handle stream) {
    uint64_t work = 0;
    if (gy_capturing(stream)) return gy_capture_broken(stream);
    if (stream->context != context && !stream->context) return INVALID_VALUE;
    TRY(make_resident(graph));
    for (handle node = graph->x.nodes; node; node = node->next) {
        work += gy_node_work(node);
        if (node->n.type != 3 || node->n.disabled) continue;
        TRY(gy_stream_work(stream, work)); /* a host function is called between the work before and after it */
        TRY(gy_stream_callback(stream, node->n.parameters.host.call, node->n.parameters.host.data));
        work = 0;
    }
    return gy_stream_work(stream, work);
}

static CUresult cuGraphLaunch_on(const char *function, bool own, handle graph, handle given) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!gy_get(graph, EXECUTABLE), INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    OUT(result ? result : run(context, graph, stream));
}
BOTH(cuGraphLaunch, _ptsz, (handle x, handle s), x, s)

static CUresult cuGraphUpload_on(const char *function, bool own, handle graph, handle given) {
    handle context, stream;
    TRY(gy_enter_context(function, &context));
    REFUSE_IF(!gy_get(graph, EXECUTABLE), INVALID_VALUE);
    CUresult result = gy_stream(context, given, own, &stream);
    OUT(result ? result : make_resident(graph));
}
BOTH(cuGraphUpload, _ptsz, (handle x, handle s), x, s)

GY_API CUresult cuGraphExecDestroy(handle graph) {
    IN;
    REFUSE_IF(!gy_get(graph, EXECUTABLE), INVALID_VALUE);
    if (graph->x.resident) memory[graph->card].used -= graph->x.memory;
    for (handle node = graph->x.nodes, next; node; node = next) {
        next = node->next;
        gy_delete(node);
    }
    gy_delete(graph);
    OUT(CUDA_SUCCESS);
}

static handle twin_in(handle graph, handle node) {
    for (handle copy = graph->x.nodes; copy; copy = copy->next)
        if (copy->n.twin == node) return copy;
    return NULL;
}

static CUresult set_kernel(const char *function, handle graph, handle node, const void *wish, size_t size) {
    kernel_node parameters = {0};
    if (!wish) return INVALID_VALUE;
    memcpy(&parameters, wish, size);
    TRY(gy_enter(function));
    handle copy = gy_get(graph, EXECUTABLE) ? twin_in(graph, node) : NULL;
    REFUSE_IF(!copy || copy->n.type, INVALID_VALUE);
    gy_node_kernel(copy, &parameters);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphExecKernelNodeSetParams(handle x, handle n, const void *p) {
    return set_kernel(__func__, x, n, p, sizeof(kernel_node_v1));
}
GY_API CUresult cuGraphExecKernelNodeSetParams_v2(handle x, handle n, const void *p) {
    return set_kernel(__func__, x, n, p, sizeof(kernel_node));
}

GY_API CUresult cuGraphNodeSetEnabled(handle graph, handle node, unsigned enabled) {
    IN;
    handle copy = gy_get(graph, EXECUTABLE) ? twin_in(graph, node) : NULL;
    REFUSE_IF(!copy, INVALID_VALUE);
    copy->n.disabled = !enabled;
    OUT(CUDA_SUCCESS);
}

/* Used and reserved, each now and at its highest. */
GY_API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int which, void *value) {
    IN;
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    REFUSE_IF(!value || which < 0 || which > 3, INVALID_VALUE);
    uint32_t card = gy_visible[device];
    const uint64_t values[] = {memory[card].used, memory[card].used_high, memory[card].reserved, memory[card].reserved_high};
    *(uint64_t *)value = values[which];
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceSetGraphMemAttribute(CUdevice device, int which, void *value) {
    IN;
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    REFUSE_IF(!value || *(uint64_t *)value || (which != 1 && which != 3), INVALID_VALUE);
    uint32_t card = gy_visible[device];
    if (which == 1) memory[card].used_high = memory[card].used;
    else memory[card].reserved_high = memory[card].reserved;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuDeviceGraphMemTrim(CUdevice device) {
    IN;
    REFUSE_IF(device < 0 || device >= gy_visible_count, INVALID_DEVICE);
    uint32_t card = gy_visible[device];
    uint64_t keep = memory[card].used + (CHUNK - memory[card].used % CHUNK) % CHUNK;
    gy_give_back(card, memory[card].reserved - keep);
    memory[card].reserved = keep;
    OUT(CUDA_SUCCESS);
}
