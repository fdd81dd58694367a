/* Graphs while they are built: nodes and what they come after. */
#include "cuda_state.h"
#include <string.h>

static uint32_t next_id = 1;

handle gy_graph_new(handle context) {
    handle graph = gy_new(GRAPH, context ? context->card : 0, context);
    graph->g.id = next_id++;
    return graph;
}

handle gy_node_add(handle graph, int type, const handle *after, size_t after_count) {
    handle node = gy_new(NODE, graph->card, graph->context);
    node->owner = graph;
    node->n.type = type;
    node->n.parameters.type = type;
    node->n.id = graph->g.count++;
    for (size_t i = 0; i < after_count && node->n.from_count < 8; i++) node->n.from[node->n.from_count++] = after[i];
    if (graph->g.last_node) graph->g.last_node->next = node;
    else graph->g.nodes = node;
    graph->g.last_node = node;
    return node;
}

void gy_graph_delete(handle graph) {
    for (handle node = graph->g.nodes, next; node; node = next) {
        next = node->next;
        gy_delete(node);
    }
    gy_delete(graph);
}

void gy_node_kernel(handle node, const kernel_node *parameters) {
    node->n.parameters.kernel = *parameters;
    node->n.function = parameters->base.function ? parameters->base.function : parameters->kernel;
}

uint64_t gy_node_work(handle node) {
    uint64_t work = 0;
    if (node->n.disabled) return 0;
    if (node->n.type == 0) return gy_get(node->n.function, FUNCTION) ? node->n.function->f.work_ns : 0;
    if (node->n.type != 4 || !gy_get(node->n.parameters.child.graph, GRAPH)) return 0;
    for (handle inner = node->n.parameters.child.graph->g.nodes; inner; inner = inner->next) work += gy_node_work(inner);
    return work;
}

GY_API CUresult cuGraphCreate(handle *graph, unsigned flags) {
    IN;
    REFUSE_IF(!graph || flags, INVALID_VALUE);
    *graph = gy_graph_new(gy_current());
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphDestroy(handle graph) {
    IN;
    REFUSE_IF(!gy_get(graph, GRAPH), INVALID_VALUE);
    gy_graph_delete(graph);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphClone(handle *answer, handle graph) {
    IN;
    REFUSE_IF(!answer || !gy_get(graph, GRAPH), INVALID_VALUE);
    *answer = gy_graph_new(graph->context);
    for (handle node = graph->g.nodes; node; node = node->next) {
        handle copy = gy_node_add(*answer, node->n.type, NULL, 0);
        copy->n = node->n;
        copy->n.twin = node;
    }
    for (handle copy = (*answer)->g.nodes; copy; copy = copy->next)
        for (uint32_t i = 0; i < copy->n.from_count; i++)
            for (handle other = (*answer)->g.nodes; other; other = other->next)
                if (other->n.twin == copy->n.from[i]) copy->n.from[i] = other;
    OUT(CUDA_SUCCESS);
}

/* What every kind of adding checks; on success the machine stays locked. */
static CUresult begin_add(const char *function, handle *answer, handle graph, const handle *after, size_t count) {
    TRY(gy_enter(function));
    REFUSE_IF(!answer || !gy_get(graph, GRAPH) || (count && !after), INVALID_VALUE);
    for (size_t i = 0; i < count; i++) REFUSE_IF(!gy_get(after[i], NODE) || after[i]->owner != graph, INVALID_VALUE);
    return CUDA_SUCCESS;
}

static CUresult add_kernel(const char *function, handle *answer, handle graph, const handle *after, size_t count,
                           const void *wish, size_t size) {
    kernel_node parameters = {0};
    if (!wish) return INVALID_VALUE;
    memcpy(&parameters, wish, size);
    TRY(begin_add(function, answer, graph, after, count));
    REFUSE_IF(!gy_get(parameters.base.function, FUNCTION) && !gy_get(parameters.kernel, FUNCTION), INVALID_HANDLE);
    *answer = gy_node_add(graph, 0, after, count);
    gy_node_kernel(*answer, &parameters);
    OUT(CUDA_SUCCESS);
}

#define WHERE handle *node, handle graph, const handle *after, size_t count
GY_API CUresult cuGraphAddKernelNode(WHERE, const kernel_node_v1 *wish) {
    return add_kernel(__func__, node, graph, after, count, wish, sizeof *wish);
}
GY_API CUresult cuGraphAddKernelNode_v2(WHERE, const kernel_node *wish) {
    return add_kernel(__func__, node, graph, after, count, wish, sizeof *wish);
}

static CUresult add_allocation(const char *function, WHERE, allocation_node *wish) {
    TRY(begin_add(function, node, graph, after, count));
    REFUSE_IF(!wish || !wish->size || wish->pool.where.type != 1, INVALID_VALUE);
    REFUSE_IF(wish->pool.where.id < 0 || wish->pool.where.id >= gy_visible_count, INVALID_DEVICE);
    handle block;
    CUresult result = gy_block(gy_current(), gy_visible[wish->pool.where.id], wish->size, 0, GRAPH_OWNED, &block);
    REFUSE_IF(result, result);
    wish->address = block->b.address;
    *node = gy_node_add(graph, 10, after, count);
    (*node)->card = block->card;
    (*node)->n.parameters.allocation = *wish;
    OUT(CUDA_SUCCESS);
}

static CUresult add_plain(const char *function, int type, WHERE, const void *parameters, size_t size) {
    TRY(begin_add(function, node, graph, after, count));
    *node = gy_node_add(graph, type, after, count);
    if (parameters) memcpy(&(*node)->n.parameters.room, parameters, size);
    OUT(CUDA_SUCCESS);
}

#define HERE node, graph, after, count
GY_API CUresult cuGraphAddMemAllocNode(WHERE, allocation_node *wish) { return add_allocation(__func__, HERE, wish); }
GY_API CUresult cuGraphAddMemFreeNode(WHERE, CUdeviceptr address) {
    return add_plain(__func__, 11, HERE, &address, sizeof address);
}
GY_API CUresult cuGraphAddEmptyNode(WHERE) { return add_plain(__func__, 5, HERE, NULL, 0); }
GY_API CUresult cuGraphAddHostNode(WHERE, const void *wish) { return add_plain(__func__, 3, HERE, wish, 16); }
GY_API CUresult cuGraphAddMemcpyNode(WHERE, const copy_3d *wish, handle context) {
    (void)context;
    return add_plain(__func__, 1, HERE, wish, sizeof *wish);
}
GY_API CUresult cuGraphAddMemsetNode(WHERE, const void *wish, handle context) {
    (void)context;
    return add_plain(__func__, 2, HERE, wish, 40);
}
GY_API CUresult cuGraphAddChildGraphNode(WHERE, handle child) {
    return gy_here && gy_get(child, GRAPH) ? add_plain(__func__, 4, HERE, &child, sizeof child) : INVALID_VALUE;
}

static CUresult add_any(const char *function, WHERE, node_parameters *wish) {
    if (!wish) return INVALID_VALUE;
    switch (wish->type) {
    case 0: return add_kernel(function, HERE, &wish->kernel, sizeof wish->kernel);
    case 10: return add_allocation(function, HERE, &wish->allocation);
    case 1: case 2: case 3: case 4: case 5: case 11: return add_plain(function, wish->type, HERE, wish->room, sizeof wish->room);
    default: return NOT_SUPPORTED;
    }
}

GY_API CUresult cuGraphAddNode(WHERE, node_parameters *wish) { return add_any(__func__, HERE, wish); }
GY_API CUresult cuGraphAddNode_v2(handle *node, handle graph, const handle *after, const void *edges, size_t count,
                                  node_parameters *wish) {
    (void)edges;
    return add_any(__func__, HERE, wish);
}

static CUresult set_kernel(const char *function, handle node, const void *wish, size_t size) {
    kernel_node parameters = {0};
    if (!wish) return INVALID_VALUE;
    memcpy(&parameters, wish, size);
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(node, NODE) || node->n.type, INVALID_VALUE);
    gy_node_kernel(node, &parameters);
    OUT(CUDA_SUCCESS);
}

static CUresult get_kernel(const char *function, handle node, void *answer, size_t size) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(node, NODE) || node->n.type || !answer, INVALID_VALUE);
    memcpy(answer, &node->n.parameters.kernel, size);
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphKernelNodeSetParams(handle n, const void *p) { return set_kernel(__func__, n, p, sizeof(kernel_node_v1)); }
GY_API CUresult cuGraphKernelNodeSetParams_v2(handle n, const void *p) { return set_kernel(__func__, n, p, sizeof(kernel_node)); }
GY_API CUresult cuGraphKernelNodeGetParams(handle n, void *p) { return get_kernel(__func__, n, p, sizeof(kernel_node_v1)); }
GY_API CUresult cuGraphKernelNodeGetParams_v2(handle n, void *p) { return get_kernel(__func__, n, p, sizeof(kernel_node)); }

GY_API CUresult cuGraphMemAllocNodeGetParams(handle node, allocation_node *answer) {
    IN;
    REFUSE_IF(!gy_get(node, NODE) || node->n.type != 10 || !answer, INVALID_VALUE);
    *answer = node->n.parameters.allocation;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphNodeGetType(handle node, int *type) {
    IN;
    REFUSE_IF(!gy_get(node, NODE) || !type, INVALID_VALUE);
    *type = node->n.type;
    OUT(CUDA_SUCCESS);
}

static CUresult nodes_of(const char *function, handle graph, handle *nodes, size_t *count, bool roots) {
    TRY(gy_enter(function));
    REFUSE_IF(!gy_get(graph, GRAPH) || !count, INVALID_VALUE);
    size_t found = 0;
    for (handle node = graph->g.nodes; node; node = node->next) {
        if (roots && node->n.from_count) continue;
        if (nodes && found < *count) nodes[found] = node;
        found++;
    }
    for (size_t i = found; nodes && i < *count; i++) nodes[i] = NULL;
    if (!nodes || found < *count) *count = found;
    OUT(CUDA_SUCCESS);
}

GY_API CUresult cuGraphGetNodes(handle g, handle *nodes, size_t *count) { return nodes_of(__func__, g, nodes, count, false); }
GY_API CUresult cuGraphGetRootNodes(handle g, handle *nodes, size_t *count) { return nodes_of(__func__, g, nodes, count, true); }
