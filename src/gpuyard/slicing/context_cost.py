"""What a context takes of this machine's cards before a program allocates anything. It differs by card and driver, and
every slice is charged for it, so it is measured where it can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

from gpuyard.slicing.drivers import CONTEXT_BYTES, Driver

_TIMEOUT_S: Final = 60
_GRAIN: Final = 1 << 20
_MOST: Final = 4 << 30

# Makes a context on one card of each name, three times, and prints by how much NVML saw the card's memory grow: the
# middle of three, because others may allocate meanwhile. Only what every Python has: it runs beside the driver.
_PROGRAM: Final = """
import ctypes, json, sys, uuid
cuda, nvml = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64)]
def used(handle):
    memory = Memory()
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
        sys.exit("no memory information")
    return memory.used
count, found = ctypes.c_int(), {}
if nvml.nvmlInit_v2() or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
    sys.exit("no driver")
for device in range(count.value):
    name, raw, handle = ctypes.create_string_buffer(96), (ctypes.c_ubyte * 16)(), ctypes.c_void_p()
    cuda.cuDeviceGetName(name, 96, device)
    if name.value in found or cuda.cuDeviceGetUuid_v2(raw, device):
        continue
    if nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.UUID(bytes=bytes(raw))}".encode(), ctypes.byref(handle)):
        continue
    grown = []
    for _ in range(3):
        context, before = ctypes.c_void_p(), used(handle)
        if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
            sys.exit("no context")
        grown.append(used(handle) - before)
        cuda.cuDevicePrimaryCtxReset_v2(device)
        cuda.cuDevicePrimaryCtxRelease_v2(device)
    found[name.value] = sorted(grown)[1]
print(json.dumps(max(found.values(), default=0)))
"""


def measured_context_bytes(driver: Driver) -> int:
    """The most that a context takes on any of the cards, up to whole MiB; CONTEXT_BYTES where it cannot be measured."""
    if driver.nvml is None:
        return CONTEXT_BYTES
    try:
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-I", "-c", _PROGRAM, str(driver.cuda), str(driver.nvml)],
            env={**os.environ, **driver.variables()}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        grown = int(json.loads(done.stdout)) if done.returncode == 0 else 0
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return CONTEXT_BYTES
    return -(-grown // _GRAIN) * _GRAIN if 0 < grown <= _MOST else CONTEXT_BYTES
