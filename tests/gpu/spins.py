"""Kernels of a fixed amount of work that heat nothing: `spins.py plain|graph`, told when as products.py is.

Matrix products slow down with the card's clocks when it draws its limit of power, so that a tenant with a quarter of the
time does more than a quarter of the products. A few warps that add in registers run at the same clocks whoever is busy:
what they do is time. Needs nothing but the driver.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

PTX = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry spin(.param .u32 count, .param .u64 out)
{
  .reg .u32 %r<4>; .reg .f32 %f<2>; .reg .pred %p<2>; .reg .u64 %rd<2>;
  ld.param.u32 %r1, [count];
  ld.param.u64 %rd1, [out];
  mov.u32 %r2, 0;
  mov.f32 %f1, 0f3F800000;
again:
  fma.rn.f32 %f1, %f1, 0f3F7FFFF0, 0f3F000000;
  add.u32 %r2, %r2, 1;
  setp.lt.u32 %p1, %r2, %r1;
  @%p1 bra again;
  st.global.f32 [%rd1], %f1;
  ret;
}
\0"""
WANTED_US = 200.0
AHEAD = 8
PER_GRAPH = 10
cuda = ctypes.CDLL("libcuda.so.1")


def must(result: int) -> None:
    if result:
        sys.exit(f"the driver answered {result}")


def main() -> None:
    context, module, kernel, stream = (ctypes.c_void_p() for _ in range(4))
    out, count = ctypes.c_uint64(), ctypes.c_uint32(20_000)
    must(cuda.cuInit(0))
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    must(cuda.cuCtxSetCurrent(context))
    must(cuda.cuModuleLoadData(ctypes.byref(module), PTX))
    must(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"spin"))
    must(cuda.cuStreamCreate(ctypes.byref(stream), 1))
    must(cuda.cuMemAlloc_v2(ctypes.byref(out), ctypes.c_size_t(512)))
    words = (ctypes.c_void_p * 2)(ctypes.addressof(count), ctypes.addressof(out))

    def launch() -> None:
        must(cuda.cuLaunchKernel(kernel, 32, 1, 1, 32, 1, 1, 0, stream, words, None))

    count.value = int(sys.argv[2]) if len(sys.argv) > 2 else calibrate(launch, stream, count)
    step, each = launch, 1
    if sys.argv[1] == "graph":
        step, each = captured(launch, stream), PER_GRAPH
    print(json.dumps({"ready": True, "count": count.value}), flush=True)
    begin, end = map(float, sys.stdin.readline().split())
    late = time.monotonic() > begin
    time.sleep(max(0.0, begin - time.monotonic()))
    marks = [ctypes.c_void_p() for _ in range(AHEAD)]
    done = launched = 0
    for mark in marks:
        must(cuda.cuEventCreate(ctypes.byref(mark), 2))
    while time.monotonic() < end:
        step()
        mark = marks[launched % AHEAD]
        if launched >= AHEAD:
            must(cuda.cuEventSynchronize(mark))
            done += each
        must(cuda.cuEventRecord(mark, stream))
        launched += 1
    print(json.dumps({"products": done, "late": late, "seconds": end - begin}))


def calibrate(launch: object, stream: ctypes.c_void_p, count: ctypes.c_uint32) -> int:
    """How many turns of the loop take WANTED_US, once the clocks are up."""
    start, stop, took = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
    for event in (start, stop):
        must(cuda.cuEventCreate(ctypes.byref(event), 0))
    for _ in range(3):
        must(cuda.cuEventRecord(start, stream))
        for _ in range(500):
            launch()  # type: ignore[operator]
        must(cuda.cuEventRecord(stop, stream))
        must(cuda.cuStreamSynchronize(stream))
        must(cuda.cuEventElapsedTime(ctypes.byref(took), start, stop))
    return int(count.value * WANTED_US / (took.value * 1000 / 500))


def captured(launch: object, stream: ctypes.c_void_p) -> object:
    """PER_GRAPH launches as one."""
    graph, exec_ = ctypes.c_void_p(), ctypes.c_void_p()
    must(cuda.cuStreamBeginCapture_v2(stream, 0))
    for _ in range(PER_GRAPH):
        launch()  # type: ignore[operator]
    must(cuda.cuStreamEndCapture(stream, ctypes.byref(graph)))
    must(cuda.cuGraphInstantiateWithFlags(ctypes.byref(exec_), graph, ctypes.c_uint64(0)))
    return lambda: must(cuda.cuGraphLaunch(exec_, stream))


main()
