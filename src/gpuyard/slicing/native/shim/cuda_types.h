/* The few types and values of the driver API that the shim reads. Values are the API's wire facts. */
#pragma once
#include "shim.h"

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct gy_opaque_ctx *CUcontext;
typedef struct gy_opaque_stream *CUstream;
typedef struct gy_opaque_event *CUevent;
typedef void *CUhandle; /* arrays, pools, graphs, functions: only passed on */
typedef unsigned long long CUmemory; /* CUmemGenericAllocationHandle */

enum { OK = 0, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, NOT_PERMITTED = 800, NOT_SUPPORTED = 801 };

struct gy_uuid { uint8_t bytes[16]; };
struct gy_location { int type, id; };
enum { LOCATION_DEVICE = 1 };

struct gy_allocation_prop { int type, handle_types; struct gy_location location; void *win32; uint8_t flags[8]; }; /* CUmemAllocationProp */
struct gy_pool_props { int type, handle_types; struct gy_location location; }; /* the beginning of CUmemPoolProps */

struct gy_array_descriptor { size_t width, height; int format; unsigned channels; };
struct gy_array3d_descriptor { size_t width, height, depth; int format; unsigned channels, flags; };
enum { ARRAY_SPARSE = 0x40, ARRAY_DEFERRED = 0x80 };

struct gy_ipc_handle { uint8_t bytes[64]; };
struct gy_launch_config { unsigned grid[3], block[3], shared; CUstream stream; };

struct gy_mem_node { /* CUDA_MEM_ALLOC_NODE_PARAMS */
    struct gy_pool_props pool;
    uint8_t rest_of_pool[72];
    const void *access;
    size_t access_count, bytes;
    CUdeviceptr pointer;
};

enum { POOL_RESERVED = 5, POOL_USED = 7, GRAPH_MEM_RESERVED = 2 };
enum { NODE_CHILD_GRAPH = 4, NODE_MEM_ALLOC = 10 };
enum { LIMIT_PRINTF_FIFO = 1, LIMIT_MALLOC_HEAP = 2 };
enum { CAPTURE_NONE = 0, CAPTURE_RELAXED = 2 };
enum { EVENT_DEFAULT = 0 };
