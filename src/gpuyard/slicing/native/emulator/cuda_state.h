/* What one process has of the driver: objects that handles stand for, and who may use them. The machine's lock guards it. */
#pragma once
#include "cuda_types.h"

enum kind { ANY = 0, CONTEXT = 1, STREAM, EVENT, MODULE, FUNCTION, LIBRARY, BLOCK, POOL, PHYSICAL, RANGE, ARRAY, MIPMAP, GRAPH,
            NODE, EXECUTABLE, HOST, KINDS };
enum block_kind { LINEAR, MANAGED, POOLED, IPC, MAPPED, GRAPH_OWNED, ARRAY_MEMORY };

#define STREAM_DEPTH 1024u

/* Every handle points at one of these; lists of them hang together by `next`. */
struct gy_object {
    enum kind kind;
    uint32_t card;              /* the machine's number, not the process's */
    uint64_t place;             /* among the others of its kind */
    struct gy_object *context, *owner, *next;
    union {
        struct { uint32_t id, flags, primary, retained, api; size_t limits[16]; struct gy_object *legacy, *per_thread; } c;
        struct { uint64_t *marks, count; /* STREAM_DEPTH of them, from the first work on */
                 uint32_t flags; int priority; uint64_t id;
                 uint32_t capture, mode, callbacks; int thread; uint64_t capture_id; struct gy_object *graph, *last; } s;
        struct { uint64_t mark, at; uint32_t flags; bool recorded, settled; struct gy_object *captured; } e;
        struct { char name[120]; uint64_t work_ns; } f;
        struct { CUdeviceptr address; uint64_t size, room, charged; enum block_kind kind; bool touched;
                 struct gy_object *pool; uint32_t handles; } b;
        struct { uint64_t used, used_high, reserved, reserved_high, threshold, max; uint32_t is_default; int options[4]; } p;
        struct { uint64_t size, uses; bool imported, released; int handle_type; } v;
        struct { array3d_description shape; uint64_t size; uint32_t levels; bool borrowed; struct gy_object *level[16]; } a;
        struct { struct gy_object *nodes, *last_node; uint32_t id, count; } g;
        struct { int type; uint32_t id; node_parameters parameters; struct gy_object *function, *event, *from[8];
                 uint32_t from_count; bool disabled; struct gy_object *twin; } n;
        struct { struct gy_object *nodes, *last_node; uint64_t flags, memory, work_ns; uint32_t id; bool resident; } x;
    };
};

/* cuda_table.c: which handles and addresses are ours. */
handle gy_new(enum kind kind, uint32_t card, handle context);
void gy_delete(handle object);
handle gy_get(const void *value, enum kind kind); /* NULL for what is no handle of this kind */
void gy_table_put(uint64_t key, handle object);
handle gy_table_take(uint64_t key);               /* removes */
handle gy_table_at(uint64_t key);
void gy_each(enum kind kind, void (*visit)(handle, void *), void *with);
void gy_forget_all(void);

/* cuda_enter.c: the way in and out of every call. */
CUresult gy_enter(const char *function);             /* locks unless it refuses */
CUresult gy_enter_context(const char *function, handle *context); /* the same, for calls that need a current context */
CUresult gy_leave(CUresult result);                  /* unlocks */
extern uint32_t gy_visible[GY_MAX_CARDS];            /* the machine's number of each device */
extern int gy_visible_count;
handle gy_current(void);
void gy_push(handle context);
handle gy_pop(void);
void gy_set_current(handle context);
handle gy_primary(uint32_t card);

/* cuda_context.c */
CUresult gy_use_primary(uint32_t card, handle *context);
int gy_device_number(uint32_t card);

/* cuda_heap.c: addresses, with host memory behind them. */
CUdeviceptr gy_address(uint64_t size, uint64_t *room);
void gy_address_free(CUdeviceptr address, uint64_t room, bool touched);
CUresult gy_block(handle context, uint32_t card, uint64_t size, uint64_t charge, enum block_kind kind, handle *block);
void gy_block_free(handle block);
handle gy_block_around(CUdeviceptr address);
bool gy_has_content(void);
void gy_touch(CUdeviceptr address);

/* cuda_pool.c */
handle gy_default_pool(uint32_t card);
CUresult gy_pool_take(handle pool, uint64_t size);
void gy_pool_return(handle pool, uint64_t size);
void gy_pool_release(handle pool, uint64_t keep);
void gy_pools_settle(uint32_t card, bool threshold); /* what a synchronisation does: gives back all above the threshold, or 0 */

/* cuda_stream.c */
CUresult gy_stream(handle context, handle given, bool per_thread, handle *stream); /* resolves the three default streams */
CUresult gy_stream_work(handle stream, uint64_t work_ns);      /* blocks while the stream's queue is full */
CUresult gy_stream_callback(handle stream, void (*call)(void *), void *data);
void gy_stream_wait(handle stream);
bool gy_stream_idle(handle stream);

/* cuda_event.c */
void gy_event_reuse(uint32_t card, uint64_t mark); /* before a mark's place in the ring is taken by this one */

/* cuda_graph.c, cuda_capture.c */
handle gy_graph_new(handle context);
void gy_graph_delete(handle graph);
handle gy_node_add(handle graph, int type, const handle *after, size_t after_count);
void gy_node_kernel(handle node, const kernel_node *parameters);
uint64_t gy_node_work(handle node);
bool gy_capturing(handle stream);
CUresult gy_capture_broken(handle stream);   /* invalidates a capture that a call on its stream may not be in */
CUresult gy_capture_node(handle stream, int type, handle *node);
CUresult gy_capture_join(handle stream, handle event);
CUresult gy_capture_forbidden(void);   /* what a call that may not happen during any capture answers */

#define TRY(call) do { CUresult result_ = (call); if (result_) return result_; } while (0)
/* Begins an entry point that needs a current context, kept as `context`. */
#define IN_CONTEXT handle context; TRY(gy_enter_context(__func__, &context))
#define IN TRY(gy_enter(__func__))
#define OUT(result) return gy_leave(result)
#define REFUSE_IF(condition, result) do { if (condition) OUT(result); } while (0)
/* An entry point and its per-thread-stream variant, which differ only in what stream 0 means. */
#define BOTH(name, suffix, parameters, ...) \
    GY_API CUresult name parameters { return name##_on(__func__, false, __VA_ARGS__); } \
    GY_API CUresult name##suffix parameters { return name##_on(__func__, true, __VA_ARGS__); }
