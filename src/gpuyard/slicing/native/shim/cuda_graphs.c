/* Memory that graphs allocate: what all nodes of a graph want is reserved when it is made ready to run, and what the driver
 * keeps for graphs afterwards stays charged until it is trimmed. */
#include <pthread.h>
#include <stdlib.h>

#include "cuda_shim.h"

static uint64_t wanted_by(CUhandle graph, int depth, CUdevice *device) {
    size_t count = 0;
    if (depth > 8 || REAL(cuGraphGetNodes)(graph, NULL, &count) != OK || count == 0) return 0;
    CUhandle *nodes = calloc(count, sizeof *nodes);
    if (nodes == NULL || REAL(cuGraphGetNodes)(graph, nodes, &count) != OK) count = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        int type = 0;
        CUhandle child;
        struct gy_mem_node node;
        if (REAL(cuGraphNodeGetType)(nodes[i], &type) != OK) continue;
        if (type == NODE_CHILD_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(nodes[i], &child) == OK)
            bytes += wanted_by(child, depth + 1, device);
        if (type == NODE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(nodes[i], &node) == OK) {
            bytes += gy_round_up(node.bytes, 2 << 20);
            *device = node.pool.location.id;
        }
    }
    free(nodes);
    return bytes;
}

static CUresult prepare(CUhandle graph, int *card, uint64_t *bytes) {
    CUdevice device = -1;
    *card = -1;
    *bytes = wanted_by(graph, 0, &device);
    if (*bytes == 0) return OK;
    *card = gy_card_of_device(device);
    if (*card < 0) return NOT_PERMITTED;
    if (gy_reserve(*card, *bytes)) return OK;
    gy_pools_settle(*card);
    return gy_reserve(*card, *bytes) ? OK : OUT_OF_MEMORY;
}

static CUresult prepared(CUresult result, CUhandle *exec, int card, uint64_t bytes) {
    if (card < 0) return result;
    if (result != OK) {
        gy_release(card, bytes);
        return result;
    }
    gy_block_keep(&(struct gy_block){.key = (uint64_t)*exec, .bytes = bytes, .card = (int16_t)card, .kind = GY_GRAPH});
    return OK;
}

#define INSTANTIATE(call)                                \
    ENTER();                                             \
    int card;                                            \
    uint64_t bytes;                                      \
    CUresult result = prepare(graph, &card, &bytes);     \
    if (result != OK) return result;                     \
    return prepared(call, exec, card, bytes)

EXPORT CUresult cuGraphInstantiate(CUhandle *exec, CUhandle graph, CUhandle *node, char *text, size_t room) {
    INSTANTIATE(REAL(cuGraphInstantiate)(exec, graph, node, text, room));
}

EXPORT CUresult cuGraphInstantiate_v2(CUhandle *exec, CUhandle graph, CUhandle *node, char *text, size_t room) {
    INSTANTIATE(REAL(cuGraphInstantiate_v2)(exec, graph, node, text, room));
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUhandle *exec, CUhandle graph, unsigned long long flags) {
    INSTANTIATE(REAL(cuGraphInstantiateWithFlags)(exec, graph, flags));
}

EXPORT CUresult cuGraphInstantiateWithParams(CUhandle *exec, CUhandle graph, void *params) {
    INSTANTIATE(REAL(cuGraphInstantiateWithParams)(exec, graph, params));
}

EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUhandle *exec, CUhandle graph, void *params) {
    INSTANTIATE(REAL(cuGraphInstantiateWithParams_ptsz)(exec, graph, params));
}

/* The driver keeps a destroyed graph's memory for the next one: it is asked to let go, and what it still keeps is charged. */
EXPORT CUresult cuGraphExecDestroy(CUhandle exec) {
    ENTER();
    struct gy_block block;
    bool known = gy_block_take((uint64_t)exec, GY_GRAPH, &block);
    CUresult result = REAL(cuGraphExecDestroy)(exec);
    if (!known) return result;
    if (result == OK) {
        CUdevice device = gy_device_of_card(block.card);
        uint64_t kept = 0, others = 0;
        REAL(cuDeviceGraphMemTrim)(device);
        REAL(cuDeviceGetGraphMemAttribute)(device, GRAPH_MEM_RESERVED, &kept);
        gy_blocks_lock();
        for (struct gy_block *b = gy_block_next(NULL); b != NULL; b = gy_block_next(b))
            if (b->kind == GY_GRAPH && b->card == block.card) others += b->bytes;
        uint64_t stays = kept > others ? kept - others : 0; /* allocations that outlive the graph that made them */
        if (stays > block.bytes) stays = block.bytes;
        if (stays) gy_block_put((struct gy_block){.key = ~(uint64_t)exec, .bytes = stays, .card = block.card, .kind = GY_GRAPH});
        gy_blocks_unlock();
        gy_release(block.card, block.bytes - stays);
        return OK;
    }
    gy_block_keep(&block);
    return result;
}

