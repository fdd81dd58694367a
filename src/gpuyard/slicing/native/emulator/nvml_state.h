/* NVML's results and the structures that programs pass. A device's handle is its card in the machine's file. */
#pragma once
#include "device.h"

typedef int nvmlReturn;
typedef gy_card *device_handle;
typedef gy_instance *instance_handle;

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, IN_USE = 19, INSUFFICIENT_RESOURCES = 23,
       ARGUMENT_VERSION_MISMATCH = 25 };

typedef struct { char legacy[16]; unsigned domain, bus, device, device_id, subsystem; char bus_id[32]; } pci_information;
typedef struct { uint64_t total, unused, used; } memory_v1;
typedef struct { unsigned version; uint64_t total, reserved, unused, used; } memory_v2;
typedef struct { unsigned pid; uint64_t bytes; } process_v1;
typedef struct { unsigned pid; uint64_t bytes; unsigned gpu_instance, compute_instance; } process_v2;
typedef struct { unsigned pid; uint64_t when_us; unsigned sm, memory, encoder, decoder; } utilization_sample;

/* Locks, unless the library is not initialized, or a fault was asked for. The second one is for calls on a device, and refuses
 * a handle that is none and a card that is lost or gone. */
nvmlReturn nv_enter(const char *function);
nvmlReturn nv_enter_device(const char *function, device_handle device);
nvmlReturn nv_leave(nvmlReturn result);
nvmlReturn nv_enter_either(const char *function, device_handle *device, instance_handle *instance);
bool nv_is_device(const void *device);

/* nvml_mig_device.c: an instance that computes is a device, and its handle is the instance. `place` is its number + 1. */
device_handle nv_card_of(instance_handle instance, uint32_t *place);  /* NULL for what is no instance */
instance_handle nv_mig_device(const void *device);                   /* NULL for what is no such device */

#define TRY(call) do { nvmlReturn result_ = (call); if (result_) return result_; } while (0)
#define OUT(result) return nv_leave(result)
#define REFUSE_IF(condition, result) do { if (condition) OUT(result); } while (0)
#define ON_DEVICE TRY(nv_enter_device(__func__, device))
