"""The emulated driver under NVIDIA's own Python bindings: memory of every kind, graphs, capture, faults and devices."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from gpuyard.testing import Machine

pytest.importorskip("cuda.bindings.driver")
pytest_plugins = ["gpuyard.testing.fixtures"]

Make = Callable[..., Machine]
MIB = 1 << 20

PRELUDE = """
from cuda.bindings import driver as d
import ctypes
def ok(answer):
    code, *values = answer
    assert code == 0, code
    return values[0] if len(values) == 1 else tuple(values) or None
def code(answer):
    return int(answer[0])
def used():
    free, total = ok(d.cuMemGetInfo())
    return (total - free) >> 20
def at(handle):
    return int(handle)
ok(d.cuInit(0))
context = ok(d.cuDevicePrimaryCtxRetain(0))
ok(d.cuCtxSetCurrent(context))
module = ok(d.cuModuleLoadData(b"anything"))
def kernel(name):
    return ok(d.cuModuleGetFunction(module, name))
def launch(function, stream=0):
    return d.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0)
say = []
"""


def run(machine: Machine, script: str, prelude: str = PRELUDE, **variables: str) -> list[Any]:
    """What the script put into `say`."""
    code = f"{prelude}\n{textwrap.dedent(script)}\nprint(say)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=machine.env() | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def small(make: Make, **options: Any) -> Machine:
    return make(clock="virtual", context_bytes=100 * MIB, **options)


def test_a_context_takes_its_overhead_and_gives_it_back(fake_driver: Make) -> None:
    script = """
    say.append(used())
    own = ok(d.cuCtxCreate(None, 0, 0))
    say.append(used())
    ok(d.cuMemAlloc(50 << 20))
    ok(d.cuCtxDestroy(own))
    say.append(at(ok(d.cuCtxGetCurrent())) == at(context))
    say.append(used())
    """
    assert run(small(fake_driver), script) == [100, 200, True, 100]


def test_what_was_copied_in_can_be_copied_out(fake_driver: Make) -> None:
    script = """
    a, b = ok(d.cuMemAlloc(4096)), ok(d.cuMemAlloc(4096))
    text = bytes(range(256)) * 16
    ok(d.cuMemcpyHtoD(a, text, 4096)); ok(d.cuMemcpyDtoD(b, a, 4096))
    out = bytearray(4096)
    ok(d.cuMemcpyDtoH(out, b, 4096)); say.append(bytes(out) == text)
    ok(d.cuMemsetD8(b, 7, 4096)); ok(d.cuMemcpyDtoH(out, b, 4096)); say.append(set(out) == {7})
    say.append(code(d.cuMemcpyHtoD(a, text, 4097)))
    """
    assert run(small(fake_driver), script) == [True, True, 1]


def test_wrong_frees_and_wrong_sizes_get_the_driver_s_errors(fake_driver: Make) -> None:
    script = """
    a = ok(d.cuMemAlloc(1 << 20))
    say += [code(d.cuMemFree(int(a) + 512)), code(d.cuMemFree(a)), code(d.cuMemFree(a)), code(d.cuMemFree(0)), code(d.cuMemFree(12345))]
    say += [code(d.cuMemAlloc(0)), code(d.cuMemAlloc(2**64 - 4096)), code(d.cuMemAlloc(1 << 40)), used()]
    say += [code(launch(12345)), code(d.cuStreamSynchronize(98765)), code(d.cuEventDestroy(4)), code(d.cuModuleGetFunction(module, b"missing"))]
    ok(d.cuCtxSetCurrent(0)); say.append(code(d.cuMemAlloc(1)))
    """
    assert run(small(fake_driver), script) == [1, 0, 1, 0, 1, 1, 2, 2, 100, 400, 400, 400, 500, 201]


def test_pools_reserve_in_chunks_and_give_back_by_threshold_and_trim(fake_driver: Make) -> None:
    script = """
    A = d.CUmemPool_attribute
    pool = ok(d.cuDeviceGetDefaultMemPool(0))
    def value(which):
        return int(ok(d.cuMemPoolGetAttribute(pool, which))) >> 20
    a = ok(d.cuMemAllocAsync(10 << 20, 0)); b = ok(d.cuMemAllocAsync(30 << 20, 0))
    say += [value(A.CU_MEMPOOL_ATTR_USED_MEM_CURRENT), value(A.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), used()]
    ok(d.cuMemFreeAsync(a, 0)); ok(d.cuMemFree(b))
    say += [value(A.CU_MEMPOOL_ATTR_USED_MEM_CURRENT), used()]
    ok(d.cuStreamSynchronize(0)); say.append(used())
    ok(d.cuMemPoolSetAttribute(pool, A.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, d.cuuint64_t(1 << 40)))
    c = ok(d.cuMemAllocFromPoolAsync(40 << 20, pool, 0)); ok(d.cuMemFreeAsync(c, 0)); ok(d.cuCtxSynchronize())
    say.append(used()); ok(d.cuMemPoolTrimTo(pool, 0)); say.append(used())
    """
    assert run(small(fake_driver), script) == [40, 64, 164, 0, 164, 100, 164, 100]


def test_virtual_memory_is_charged_once_until_released_and_unmapped(fake_driver: Make) -> None:
    script = """
    wish = d.CUmemAllocationProp()
    wish.type = d.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wish.location.type = d.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wish.location.id = 0
    wish.requestedHandleTypes = d.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    say.append(ok(d.cuMemGetAllocationGranularity(wish, d.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM)) >> 20)
    say.append(code(d.cuMemCreate(1 << 20, wish, 0)))
    memory = ok(d.cuMemCreate(64 << 20, wish, 0)); say.append(used())
    where = ok(d.cuMemAddressReserve(128 << 20, 0, 0, 0))
    ok(d.cuMemMap(where, 64 << 20, 0, memory, 0)); say.append(code(d.cuMemMap(where, 64 << 20, 0, memory, 0)))
    file = ok(d.cuMemExportToShareableHandle(memory, wish.requestedHandleTypes, 0))
    again = ok(d.cuMemImportFromShareableHandle(int(file), wish.requestedHandleTypes)); say.append(used())
    ok(d.cuMemRelease(memory)); say.append(used())
    say.append(code(d.cuMemAddressFree(where, 128 << 20)))
    ok(d.cuMemUnmap(where, 64 << 20)); say.append(used()); ok(d.cuMemAddressFree(where, 128 << 20))
    """
    assert run(small(fake_driver), script) == [2, 1, 164, 208, 164, 164, 1, 100]


def test_arrays_take_what_the_driver_says_they_need(fake_driver: Make) -> None:
    script = """
    shape = d.CUDA_ARRAY3D_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels, shape.Format = 1024, 1024, 4, d.CUarray_format.CU_AD_FORMAT_FLOAT
    one = ok(d.cuArray3DCreate(shape)); say.append(ok(d.cuArrayGetMemoryRequirements(one, 0)).size >> 20); say.append(used())
    many = ok(d.cuMipmappedArrayCreate(shape, 3))
    say.append(ok(d.cuMipmappedArrayGetMemoryRequirements(many, 0)).size >> 20); say.append(used())
    level = ok(d.cuMipmappedArrayGetLevel(many, 1)); say.append(code(d.cuArrayDestroy(level)))
    ok(d.cuMipmappedArrayDestroy(many)); ok(d.cuArrayDestroy(one)); say += [code(d.cuArrayDestroy(one)), used()]
    """
    assert run(small(fake_driver), script) == [16, 116, 21, 137, 400, 400, 100]


def test_events_say_when_the_card_got_there_in_both_directions(fake_driver: Make) -> None:
    script = """
    first, last = ok(d.cuEventCreate(0)), ok(d.cuEventCreate(0))
    say.append(code(d.cuEventElapsedTime(first, last)))
    work = kernel(b"k_5000000")
    ok(d.cuEventRecord(first, 0)); ok(launch(work)); ok(launch(work)); ok(d.cuEventRecord(last, 0))
    say += [code(d.cuEventQuery(last)), code(d.cuStreamQuery(0)), code(d.cuEventElapsedTime(first, last))]
    ok(d.cuEventSynchronize(last))
    say += [round(ok(d.cuEventElapsedTime(first, last)), 1), round(ok(d.cuEventElapsedTime(last, first)), 1)]
    """
    assert run(small(fake_driver), script) == [400, 600, 600, 600, 10.0, -10.0]


def test_a_captured_stream_becomes_a_graph_that_takes_as_long(fake_driver: Make) -> None:
    script = """
    clock = ctypes.CDLL("libcuda.so.1").gyEmulatorNowNs; clock.restype = ctypes.c_uint64
    stream, side, event = ok(d.cuStreamCreate(0)), ok(d.cuStreamCreate(0)), ok(d.cuEventCreate(2))
    work = kernel(b"k_3000000")
    ok(d.cuStreamBeginCapture(stream, d.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
    begun = clock()
    ok(launch(work, stream)); ok(d.cuEventRecord(event, stream)); ok(d.cuStreamWaitEvent(side, event, 0)); ok(launch(work, side))
    say += [int(ok(d.cuStreamIsCapturing(side))), int(ok(d.cuStreamIsCapturing(stream)))]
    graph = ok(d.cuStreamEndCapture(stream)); say.append(int(ok(d.cuStreamIsCapturing(side))))
    say.append(ok(d.cuGraphGetNodes(graph))[1] if not d.cuGraphGetNodes(graph)[1] else len(ok(d.cuGraphGetNodes(graph, 2))[0]))
    runnable = ok(d.cuGraphInstantiate(graph, 0))
    ok(d.cuCtxSynchronize()); say.append((clock() - begun) < 1_000_000)
    begun = clock(); ok(d.cuGraphLaunch(runnable, stream)); ok(d.cuStreamSynchronize(stream)); say.append(round((clock() - begun) / 1e6))
    """
    assert run(small(fake_driver), script) == [1, 1, 0, 2, True, 6]


def test_what_may_not_happen_in_a_capture_invalidates_it(fake_driver: Make) -> None:
    script = """
    stream = ok(d.cuStreamCreate(0))
    mode = d.CUstreamCaptureMode
    for wish in (mode.CU_STREAM_CAPTURE_MODE_GLOBAL, mode.CU_STREAM_CAPTURE_MODE_RELAXED):
        ok(d.cuStreamBeginCapture(stream, wish))
        say.append(code(d.cuMemAlloc(1024))); say.append(int(ok(d.cuStreamIsCapturing(stream))))
        say.append(code(d.cuStreamEndCapture(stream)))
    ok(d.cuStreamBeginCapture(stream, mode.CU_STREAM_CAPTURE_MODE_RELAXED))
    say += [code(d.cuStreamSynchronize(stream)), code(d.cuStreamEndCapture(stream)), code(d.cuStreamEndCapture(stream))]
    say.append(code(d.cuStreamBeginCapture(0, mode.CU_STREAM_CAPTURE_MODE_GLOBAL)))
    """
    assert run(small(fake_driver), script) == [900, 2, 901, 0, 1, 0, 900, 901, 401, 900]


def test_a_graph_s_memory_comes_with_its_launch_and_goes_with_the_trim(fake_driver: Make) -> None:
    script = """
    graph = ok(d.cuGraphCreate(0))
    wish = d.CUDA_MEM_ALLOC_NODE_PARAMS()
    wish.poolProps.allocType = d.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wish.poolProps.location.type = d.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wish.bytesize = 40 << 20
    memory = ok(d.cuGraphAddMemAllocNode(graph, None, 0, wish))
    node = ok(d.cuGraphAddMemFreeNode(graph, [memory], 1, wish.dptr))
    runnable = ok(d.cuGraphInstantiate(graph, 0)); say.append(used())
    ok(d.cuGraphLaunch(runnable, 0)); ok(d.cuGraphLaunch(runnable, 0)); say.append(used())
    which = d.CUgraphMem_attribute
    say += [int(ok(d.cuDeviceGetGraphMemAttribute(0, w))) >> 20 for w in (which.CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, which.CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)]
    ok(d.cuGraphExecDestroy(runnable)); say.append(used()); ok(d.cuDeviceGraphMemTrim(0)); say.append(used())
    """
    assert run(small(fake_driver), script) == [100, 164, 40, 64, 164, 100]


def test_host_functions_run_after_the_work_before_them(fake_driver: Make) -> None:
    script = """
    seen = []
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    note = kind(lambda _: seen.append("called"))
    library = ctypes.CDLL("libcuda.so.1")
    ok(launch(kernel(b"k_1000000")))
    say.append(library.cuLaunchHostFunc(None, note, None)); say.append(len(seen))
    ok(d.cuStreamSynchronize(0)); say.append(seen)
    """
    assert run(small(fake_driver), script) == [0, 0, ["called"]]


@pytest.mark.parametrize(
    ("wish", "seen"),
    [
        ("1", ["H100"]),
        ("1,0", ["H100", "RTX4090"]),
        ("", None),
        ("0,9,1", ["RTX4090"]),
        ("0,0", None),
        ("uuid", ["H100"]),
    ],
)
def test_visible_devices_choose_and_order_the_cards(fake_driver: Make, wish: str, seen: list[str] | None) -> None:
    machine = fake_driver("1xRTX4090,1xH100")
    names = {card.name: card.model for card in machine.cards}
    if wish == "uuid":
        wish = machine.cards[1].uuid[:12]
    script = """
    say.append(int(d.cuInit(0)[0]))
    if not say[0]:
        say += [d.cuDeviceGetName(96, i)[1].split(b"\\0")[0].decode() for i in range(d.cuDeviceGetCount()[1])]
    """
    prelude = "from cuda.bindings import driver as d\nsay = []"
    result, *found = run(machine, script, prelude, CUDA_VISIBLE_DEVICES=wish)
    assert (result, [names[name] for name in found]) == ((0, seen) if seen else (100, []))


def test_injected_errors_meet_the_calls_they_were_meant_for(fake_driver: Make) -> None:
    machine = small(fake_driver)
    fault = machine.inject("cuMemAlloc_v2", 2, skip=1, times=2)
    late = machine.inject("cuMemsetD8_v2", delay_ns=5_000_000)
    script = """
    clock = ctypes.CDLL("libcuda.so.1").gyEmulatorNowNs; clock.restype = ctypes.c_uint64
    say += [code(d.cuMemAlloc(1024)) for _ in range(5)]
    a = ok(d.cuMemAlloc(1024))
    begun = clock(); ok(d.cuMemsetD8(a, 0, 1024)); say.append((clock() - begun) >= 5_000_000)
    """
    assert run(machine, script) == [0, 2, 2, 0, 0, True]
    assert (machine.hits(fault), machine.hits(late)) == (2, 1)


def test_a_lost_card_fails_every_call_and_an_unplugged_one_is_not_seen(fake_driver: Make) -> None:
    machine = fake_driver("2xRTX4090")
    machine.lose(0)
    prelude = "from cuda.bindings import driver as d\nsay = []\nd.cuInit(0)"
    script = "say += [int(d.cuDevicePrimaryCtxRetain(0)[0]), int(d.cuDevicePrimaryCtxRetain(1)[0])]"
    assert run(machine, script, prelude) == [719, 0]
    machine.unplug(0)
    assert run(machine, "say.append(d.cuDeviceGetCount()[1])", prelude) == [1]
    machine.unplug(1)
    assert run(machine, "say.append(int(d.cuInit(0)[0]))", prelude) == [100]


def test_a_child_of_a_fork_has_no_driver_and_leaves_the_parent_s_memory_alone(fake_driver: Make) -> None:
    script = """
    import os
    ok(d.cuMemAlloc(50 << 20))
    child = os.fork()
    if child == 0:
        os._exit(int(d.cuInit(0)[0]) * 16 + int(d.cuMemAlloc(1 << 20)[0]))
    say.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); say.append(used())
    """
    assert run(small(fake_driver), script) == [3 * 16 + 3, 150]
