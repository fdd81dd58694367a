/* The few types and values of NVML that the shim reads. */
#pragma once
#include "names.h"
#include "shim.h"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NO_PERMISSION = 4, NOT_THERE = 6, INSUFFICIENT_SIZE = 7, NO_FUNCTION = 13 };
typedef struct gy_opaque_device *Device;
typedef int Result;

struct memory { uint64_t total, free, used; };
struct memory_v2 { unsigned version; uint64_t total, reserved, free, used; };
struct process_v1 { unsigned pid; uint64_t bytes; };
struct process { unsigned pid; uint64_t bytes; unsigned gpu_instance, compute_instance; };

#include "calls.h"
