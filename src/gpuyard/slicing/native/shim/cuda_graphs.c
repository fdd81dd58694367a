/* Memory that graphs allocate: what all nodes of a graph want is reserved when it is made ready to run, and what the driver
 * keeps for graphs afterwards stays charged until it is trimmed. */
#include "cuda_shim.h"

static uint64_t wanted_by(CUhandle graph, int depth, CUdevice *device) {
    size_t count = 0;
    if (depth > 8 || REAL(cuGraphGetNodes)(graph, NULL, &count) != OK || count == 0) return 0;
    CUhandle *nodes = calloc(count, sizeof *nodes), child;
    if (nodes == NULL || REAL(cuGraphGetNodes)(graph, nodes, &count) != OK) count = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        int type = 0;
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

#define INSTANTIATE(name, per_thread, extra, parameters, ...)                                          \
    OURS(name) parameters {                                                                            \
        CUdevice device = -1;                                                                          \
        struct gy_block block = {.bytes = wanted_by(graph, 0, &device), .card = -1, .kind = GY_GRAPH}; \
        if (block.bytes) block.card = (int16_t)gy_card_of_device(device);                              \
        CUresult result = block.bytes ? gy_grant(block.card, block.bytes) : OK;                        \
        if (result != OK) return result;                                                               \
        result = REAL(name)(__VA_ARGS__);                                                              \
        if (result == OK) block.key = (uint64_t)*exec;                                                 \
        return gy_granted(result, &block, NULL);                                                       \
    }
GY_EACH_INSTANTIATE(INSTANTIATE)

/* The driver keeps a destroyed graph's memory for the next one: it is asked to let go, and what it still keeps is charged. */
OURS(cuGraphExecDestroy)(CUhandle exec) {
    struct gy_block block;
    bool known = gy_block_take((uint64_t)exec, GY_GRAPH, &block);
    CUresult result = REAL(cuGraphExecDestroy)(exec);
    if (known && result != OK) gy_block_keep(&block);
    if (!known || result != OK) return result;
    CUdevice device = gy_device_of_card(block.card);
    uint64_t kept = 0, others = 0;
    REAL(cuDeviceGraphMemTrim)(device);
    REAL(cuDeviceGetGraphMemAttribute)(device, GRAPH_MEM_RESERVED, &kept);
    gy_hold(&gy_blocks_busy);
    for (struct gy_block *b = gy_block_next(NULL); b != NULL; b = gy_block_next(b))
        if (b->kind == GY_GRAPH && b->card == block.card) others += b->bytes;
    uint64_t stays = kept > others ? kept - others : 0; /* allocations that outlive the graph that made them */
    if (stays > block.bytes) stays = block.bytes;
    if (stays) gy_block_put(&(struct gy_block){.key = ~(uint64_t)exec, .bytes = stays, .card = block.card, .kind = GY_GRAPH});
    gy_let_go(&gy_blocks_busy);
    gy_release(block.card, block.bytes - stays);
    return OK;
}
