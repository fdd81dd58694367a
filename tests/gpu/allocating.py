"""Allocates by one way until it is refused: `allocating.py WAY STEP_BYTES`. Prints one JSON line, and keeps all of it
until its input ends."""

from __future__ import annotations

import ctypes
import json
import sys

U64 = ctypes.c_uint64


class Location(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("id", ctypes.c_int))


class Properties(ctypes.Structure):
    """CUmemAllocationProp: pinned memory of device 0."""

    _fields_ = (
        ("kind", ctypes.c_int), ("handles", ctypes.c_int), ("location", Location), ("win", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    )  # fmt: skip


def allocate(cuda: ctypes.CDLL, way: str, bytes_: int) -> int:
    pointer, pitch = U64(), ctypes.c_size_t()
    if way == "plain":
        return cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(bytes_))
    if way == "pitch":
        rows = ctypes.c_size_t(bytes_ // 4096)
        return cuda.cuMemAllocPitch_v2(ctypes.byref(pointer), ctypes.byref(pitch), ctypes.c_size_t(4096), rows, 4)
    if way == "async":
        result = cuda.cuMemAllocAsync(ctypes.byref(pointer), ctypes.c_size_t(bytes_), None)
        return result or cuda.cuCtxSynchronize()
    properties = Properties(kind=1, location=Location(1, 0))
    return cuda.cuMemCreate(ctypes.byref(pointer), ctypes.c_size_t(bytes_), ctypes.byref(properties), U64(0))


def main() -> None:
    way, step = sys.argv[1], int(sys.argv[2])
    cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    for result in (
        cuda.cuInit(0),
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        cuda.cuCtxSetCurrent(context),
    ):
        if result:
            sys.exit(f"no context: {result}")
    granted = code = 0
    while granted < 1 << 40 and (code := allocate(cuda, way, step)) == 0:
        granted += step
    print(json.dumps({"granted_bytes": granted, "code": code}), flush=True)
    sys.stdin.readline()


main()
