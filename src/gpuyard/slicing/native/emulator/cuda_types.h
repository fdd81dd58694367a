/* What the driver API's binary interface fixes: results, and the structures that programs pass. Handles are opaque. */
#pragma once
#include "device.h"

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct gy_object *handle;

enum {
    CUDA_SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, DEVICE_UNAVAILABLE = 46, INVALID_RESOURCE_CONFIGURATION = 915, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, CONTEXT_ALREADY_CURRENT = 202, ALREADY_MAPPED = 208,
    FILE_NOT_FOUND = 301, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801, STREAM_CAPTURE_UNSUPPORTED = 900, STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_UNMATCHED = 903, ILLEGAL_STATE = 401, UNKNOWN = 999,
};

typedef struct { uint8_t bytes[16]; } CUuuid;
typedef struct { uint8_t bytes[64]; } ipc_handle;
typedef struct { int type; int id; } location;
typedef struct { location where; int flags; } access_description;
typedef struct {
    int type, handle_types;
    location where;
    void *metadata;
    struct { uint8_t compression, rdma; uint16_t usage; uint8_t reserved[4]; } flags;
} allocation_properties;
typedef struct {
    int type, handle_types;
    location where;
    void *security;
    size_t max_size;
    uint8_t rest[56];
} pool_properties;
typedef struct { size_t width, height; int format; unsigned channels; } array_description;
typedef struct { size_t width, height, depth; int format; unsigned channels, flags; } array3d_description;
typedef struct { size_t size, alignment; unsigned reserved[4]; } array_requirements;
typedef struct {
    unsigned grid[3], block[3], shared;
    handle stream;
    void *attributes;
    unsigned attribute_count;
} launch_config;
typedef struct { handle function; unsigned grid[3], block[3], shared; handle stream; void **parameters; } launch_parameters;
/* The first of these is all of the node's first version; newer ones go on with a kernel and a context. */
typedef struct { handle function; unsigned grid[3], block[3], shared; void **parameters, **extra; } kernel_node_v1;
typedef struct { kernel_node_v1 base; handle kernel, context; } kernel_node;
typedef struct {
    pool_properties pool;
    const access_description *access;
    size_t access_count, size;
    CUdeviceptr address;
} allocation_node;
typedef struct {
    int type, reserved[3];
    union { kernel_node kernel; allocation_node allocation; CUdeviceptr freed; struct { handle graph; int owner; } child;
            struct { void (*call)(void *); void *data; } host; uint64_t room[29]; };
    uint64_t reserved2;
} node_parameters;
typedef struct { uint64_t flags; handle upload_stream, failed_node; int result; } instantiate_parameters;
typedef struct {
    size_t from_x, from_y; int from_type; const void *from_host; CUdeviceptr from_device; handle from_array; size_t from_pitch;
    size_t to_x, to_y; int to_type; void *to_host; CUdeviceptr to_device; handle to_array; size_t to_pitch;
    size_t width, height;
} copy_2d;
typedef struct {
    size_t from_x, from_y, from_z, from_lod; int from_type; const void *from_host; CUdeviceptr from_device; handle from_array;
    void *reserved0; size_t from_pitch, from_height;
    size_t to_x, to_y, to_z, to_lod; int to_type; void *to_host; CUdeviceptr to_device; handle to_array;
    void *reserved1; size_t to_pitch, to_height;
    size_t width, height, depth;
} copy_3d;
