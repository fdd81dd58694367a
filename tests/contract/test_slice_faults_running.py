"""Bad input and faults that slices must survive while their programs run: rows 14 to 25 of `test_slice_faults.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.escape import UNCOUNTED_BYTES, CardUse, strangers
from gpuyard.slicing.ladder import guarantee
from gpuyard.slicing.layout import layout
from gpuyard.slicing.ledger import Holder, namespace_of, start_time_of
from gpuyard.testing import Machine
from slices_in_hand import LEDGER, MIB, PRELUDE, Shop, compile_tenant, forge, say

LIMIT = 2048 * MIB
CONTEXT = 400 * MIB


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(tmp_path: Path, program: Path) -> Iterator[Shop]:
    with Machine("2xRTX4090") as machine:
        shop = Shop(machine, tmp_path / "slices", program)
        yield shop
        shop.close()


def test_row_14_what_is_too_new_is_not_found_and_what_is_missing_answers_so(shop: Shop) -> None:
    script = """
address, status = c_void_p(), ctypes.c_int()
say += [cuda.cuGetProcAddress_v2(b"cuFromTheFuture", byref(address), 99000, c_uint64(0), byref(status)) != 0, address.value]
say += [hasattr(cuda, "cuFromTheFuture"), cuda.cuGetProcAddress_v2(b"cuMemAlloc", byref(address), 12000, c_uint64(0), byref(status))]
say += [address.value == ctypes.cast(cuda.cuMemAlloc_v2, c_void_p).value]
"""
    assert say(shop.cut("a", LIMIT), script) == [True, None, False, 0, True]


def test_row_15_every_way_to_launch_is_charged_and_over_several_devices_at_once_is_refused(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT, 250_000)
    script = """
class One(ctypes.Structure):
    _fields_ = [("function", c_void_p), ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
                ("shared", ctypes.c_uint), ("stream", c_void_p), ("parameters", c_void_p)]
module, function = c_void_p(), c_void_p()
cuda.cuModuleLoadData(byref(module), b"x"); cuda.cuModuleGetFunction(byref(function), module, b"k_1000")
say.append(cuda.cuLaunchCooperativeKernelMultiDevice(byref(One(function, (1, 1, 1), (1, 1, 1))), 1, 0) != 0)
"""
    assert say(environment, script) == [True]
    # Kernels, per-thread streams, graphs and cooperative launches: test_a_slice_gets_its_share_within_two_points.


def test_row_16_a_capture_is_neither_blocked_nor_recorded_into(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT, 62_500)
    script = """
module, function, stream, graph, count = c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_size_t()
cuda.cuModuleLoadData(byref(module), b"x"); cuda.cuModuleGetFunction(byref(function), module, b"k_50000000")
cuda.cuStreamCreate(byref(stream), 1)
launch = lambda: cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, None, None)
import time
for _ in range(2): launch()  # in debt now: the next one would wait for more than a second
say.append(cuda.cuStreamBeginCapture_v2(stream, 0))
begun = time.monotonic()
for _ in range(100): say.append(launch()) if launch() else None
say += [time.monotonic() - begun < 0.5, cuda.cuStreamEndCapture(stream, byref(graph))]
say += [cuda.cuGraphGetNodes(graph, None, byref(count)), count.value]
"""
    assert say(environment, script) == [0, True, 0, 0, 100]


def test_row_17_a_long_kernel_is_paid_for_and_costs_its_neighbour_nothing_more(program: Path, tmp_path: Path) -> None:
    with Machine("1xRTX4090", clock="virtual", processes=2, call_ns=1000) as machine:
        shop = Shop(machine, tmp_path / "slices", program)
        long = shop.start(shop.cut("long", 1024 * MIB, 500_000), "share", "kernel", 10_000_000_000, 60, 1)
        short = shop.start(shop.cut("short", 1024 * MIB, 500_000), "share", "kernel", 1_000_000, 60, 8)
        counts = [int(each.communicate(timeout=120)[0].split()[-1]) for each in (long, short)]
        shop.close()
    # 60 s at a half are three kernels of ten seconds, and whoever began one may end it.
    assert counts[0] <= 4
    assert counts[1] / 1000 / 60 >= 0.42  # the card itself shares its time evenly while both work


def test_row_18_a_neighbour_that_was_stopped_even_with_the_clock_in_hand_does_not_stop_time(shop: Shop) -> None:
    words = ("share", "kernel", 1_000_000)
    stopped = shop.start(shop.cut("stopped", 1024 * MIB, 250_000), *words, 60, 8)
    clock = shop.keeper._root / "clocks" / shop.machine.cards[0].uuid
    shape = layout().structs["card_clock"]
    environment = shop.cut("well", 1024 * MIB, 500_000)
    for held_until_ns in (None, time.monotonic_ns() + 15_000_000, 2**63):
        time.sleep(0.1)
        os.kill(stopped.pid, signal.SIGSTOP)
        if held_until_ns is not None:  # as a process leaves the lock that is stopped with it, or writes what it likes
            with clock.open("r+b") as file:
                file.seek(shape.at("mutex"))
                file.write(held_until_ns.to_bytes(8, "little"))
        begun = time.monotonic()
        told = shop.run(environment, *words, 0.5, 8)
        assert time.monotonic() - begun < 8
        assert 50 <= int(told.split()[-1]) <= 300  # its half of a half second, on a busy machine less
        os.kill(stopped.pid, signal.SIGCONT)
    shop.keeper.release("stopped")
    stopped.kill()


def test_row_19_time_that_nobody_worked_in_earns_a_burst_and_no_more(shop: Shop) -> None:
    environment = shop.cut("a", 1024 * MIB, 250_000)
    shop.run(environment, "share", "kernel", 1_000_000, 0.2, 8)
    clock = shop.keeper._root / "clocks" / shop.machine.cards[0].uuid
    shape, tenant = layout().structs["card_clock"], layout().structs["clock_tenant"]
    content = bytearray(clock.read_bytes())
    base = shape.at("tenants", 0)
    for name in ("refilled_ns", "busy_until_ns"):  # as after a suspension of a thousand days
        tenant.write(content, name, 1, base=base)
    shape.write(content, "advanced_ns", 2**63, base=0)  # and a clock of another boot, far ahead
    clock.write_bytes(content)
    told = shop.run(environment, "share", "kernel", 1_000_000, 1, 8)
    assert int(told.split()[-1]) <= 250 + 20 + 16 + 30  # a quarter, a burst of 20 ms, two batches, and some


def test_row_20_without_the_yard_the_limits_stay(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    del shop.keeper  # nothing runs on behalf of the slice: its files are all there is
    granted = (LIMIT - CONTEXT) // (256 * MIB)
    assert shop.run(environment, "fill", "plain", 256 * MIB).startswith(f"granted {granted} then 2")


MPS = {
    "a daemon that is dead": {"CUDA_MPS_PIPE_DIRECTORY": "DEAD"},
    "a directory that is not there": {"CUDA_MPS_PIPE_DIRECTORY": "/nowhere/mps"},
    "a larger share of the multiprocessors": {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100"},
    "more memory": {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=24G"},
}


@pytest.mark.parametrize("what", MPS)
def test_row_21_mps_that_is_not_as_it_was_asked_for_lifts_no_limit(shop: Shop, tmp_path: Path, what: str) -> None:
    dead = tmp_path / "mps"
    dead.mkdir()
    os.mkfifo(dead / "control")  # as a daemon leaves it that was killed: nobody reads
    asked = {name: str(dead) if value == "DEAD" else value for name, value in MPS[what].items()}
    environment = {**shop.cut("a", LIMIT, 250_000), **asked}
    granted = (LIMIT - CONTEXT) // (256 * MIB)
    assert shop.run(environment, "fill", "plain", 256 * MIB).startswith(f"granted {granted} then 2")
    told = shop.run(environment, "share", "kernel", 1_000_000, 1, 8)
    assert int(told.split()[-1]) <= 250 + 20 + 16 + 30  # a quarter, a burst of 20 ms, two batches, and some


@pytest.mark.parametrize(
    "what",
    ["its daemon is dead", "another directory", "no directory", "a dead daemon's directory", "more multiprocessors"],
)
def test_row_21_a_program_that_mps_does_not_hold_to_its_slice_is_refused_in_one_line(program: Path, what: str) -> None:
    with Machine("1xRTX4090") as machine, tempfile.TemporaryDirectory() as folder:
        shop = Shop(machine, Path(folder) / "slices", program)
        (card,) = (each.uuid for each in machine.cards)
        environment = {**shop.cut("a", LIMIT, 250_000, level=Guarantee.MPS), "CUDA_VISIBLE_DEVICES": card}
        assert shop.run(environment, "info").startswith("free ")
        assert shop.keeper.mps is not None
        daemon = shop.keeper.mps.daemon(card)
        if what == "its daemon is dead":
            ended = [*daemon.servers(), daemon.pid() or 0]
            for pid in ended:
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while any(start_time_of(pid) is not None for pid in ended):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        elif what == "another directory":
            environment["CUDA_MPS_PIPE_DIRECTORY"] = "/nowhere/mps"
        elif what == "no directory":
            del environment["CUDA_MPS_PIPE_DIRECTORY"]
        elif what == "a dead daemon's directory":
            dead = Path(folder) / "dead"
            dead.mkdir()
            os.mkfifo(dead / "control")  # nobody reads
            environment["CUDA_MPS_PIPE_DIRECTORY"] = str(dead)
        else:
            shop.cut("b", LIMIT, 500_000, level=Guarantee.MPS)  # the daemon lets its clients have half of the card now
            environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = "100"
        process = shop.start(environment, "info")
        out, err = process.communicate(timeout=30)
        shop.close()
    assert (process.returncode != 0, "total" in out) == (True, False)
    (line,) = (line for line in err.splitlines() if line.startswith("gpuyard"))
    assert "MPS does not hold this program to its slice" in line


def test_row_21_a_unit_is_not_started_where_its_daemon_cannot_be(program: Path) -> None:
    with Machine("1xRTX4090") as machine, tempfile.TemporaryDirectory() as folder:
        shop = Shop(machine, Path(folder) / "slices", program)
        machine.inject("nvmlDeviceSetComputeMode", 4, times=100)  # as for a user who is not root
        with pytest.raises(YardError) as refusal:
            shop.cut("a", LIMIT, 250_000, level=Guarantee.MPS)
        assert refusal.value.code == "mps_unavailable"
        assert shop.keeper.units() == frozenset()


@pytest.mark.parametrize("runtime", ["process", "container", "simulated"])
def test_row_21_mps_that_nobody_verified_is_claimed_for_no_card(runtime: str) -> None:
    parts = [SliceShape.fraction(24 << 30, count) for count in (1, 2, 16)]
    for simulated, shape, held in product((True, False), parts, (frozenset[str](), frozenset({"GPU-1"}))):
        card = Card("GPU-1", "RTX4090", "local", "0000:01:00.0", 24 << 30, simulated=simulated)
        assert guarantee(card, shape, runtime, held).guarantee is not Guarantee.MPS


def test_row_22_a_tenant_that_writes_into_its_ledger_harms_itself_and_is_told_of(shop: Shop) -> None:
    shop.cut("honest", LIMIT)
    environment = {**shop.cut("liar", LIMIT), "GPUYARD_LEASE": "liar", "GPUYARD_ATTEMPT": "1"}
    held = shop.start(environment, "hold", 1024 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    honest = shop.keeper.usage("honest")
    started = start_time_of(held.pid) or 0
    use = CardUse("GPU-1", held.pid, 1024 * MIB + CONTEXT)
    true = Holder(held.pid, started, namespace_of() or 0, (1024 * MIB + CONTEXT,))
    assert strangers([use], [true], {"liar-1"}) == ()
    forge(shop, "liar", 0, used=0, pid=0)
    seen = shop.keeper.usage("liar")
    assert seen is not None
    assert [stranger.pid for stranger in strangers([use], seen.holders, {"liar-1"})] == [held.pid]
    little = Holder(held.pid, started, namespace_of() or 0, (1,))
    more = CardUse("GPU-1", held.pid, UNCOUNTED_BYTES + 2)
    assert [stranger.pid for stranger in strangers([more], [little], {"liar-1"})] == [held.pid]
    assert shop.keeper.usage("honest") == honest


def test_row_22_a_ledger_whose_lock_a_tenant_keeps_does_not_stop_the_yard(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    ledger = shop.keeper._root / "a" / "ledger"
    script = f"""
import mmap, os, time
handle = os.open({str(ledger)!r}, os.O_RDWR)
view = mmap.mmap(handle, 0)
place = (ctypes.c_char * 64).from_buffer(view, {LEDGER.at("mutex")})
assert ctypes.CDLL(None).pthread_mutex_lock(byref(place)) == 0
print("locked", flush=True); time.sleep(60)
"""
    code = f"{PRELUDE}\n{script}"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"locked\n"
        begun = time.monotonic()
        shop.keeper.reap()
        assert time.monotonic() - begun < 0.5
        keeper.kill()


def test_row_24_the_library_stands_beside_other_preloads_and_other_ways_of_loading(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    source = tmp_path / "other.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdlib.h>\n"
        'void *malloc(size_t n) { static void *(*real)(size_t); if (!real) real = dlsym(RTLD_NEXT, "malloc"); return real(n); }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", other, source, "-ldl"], check=True)
    environment = shop.cut("a", LIMIT)
    assert f"total {LIMIT}" in shop.run({**environment, "LD_PRELOAD": str(other)}, "info")
    script = f"""
dlmopen, dlsym = ctypes.CDLL(None).dlmopen, ctypes.CDLL(None).dlsym
dlmopen.restype = dlsym.restype = c_void_p
dlsym.argtypes = [c_void_p, ctypes.c_char_p]
def total(library):
    size, shared = c_size_t(), c_void_p()
    call = lambda name, *a: ctypes.CFUNCTYPE(ctypes.c_int)(dlsym(library, name))(*a) if not a else None
    get = lambda name, *types: ctypes.CFUNCTYPE(ctypes.c_int, *types)(dlsym(library, name))
    if get(b"cuInit", ctypes.c_uint)(0): return None
    get(b"cuDeviceTotalMem_v2", c_void_p, ctypes.c_int)(byref(size), 0)
    return size.value
dlopen = ctypes.CDLL(None).dlopen
dlopen.restype, dlopen.argtypes = c_void_p, [ctypes.c_char_p, ctypes.c_int]
DEEPBIND, NOW = 8, 2
say.append(total(dlopen(b"libcuda.so.1", NOW | DEEPBIND)) == {LIMIT})
"""
    assert say(environment, script, begun=False) == [True]
    # A space of its own (dlmopen) loads a second copy, which is held to the same ledger.
    script = (
        script.rpartition("dlopen = ")[0] + f'say.append(total(dlmopen(-1, b"libcuda.so.1", 2)) in (None, {LIMIT}))\n'
    )
    assert say(environment, script, begun=False) == [True]


@pytest.mark.parametrize(
    ("wish", "cards"),
    [(None, 1), ("1", 1), ("0", 0), ("1,0", 1), ("", 0), ("nonsense", 0), ("UUID", 1), ("0,1", 1)],
)
def test_row_25_a_slice_is_found_by_its_uuid_whatever_is_made_visible(shop: Shop, wish: str | None, cards: int) -> None:
    environment = shop.cut("a", LIMIT, card=1)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if wish is not None:
        environment["CUDA_VISIBLE_DEVICES"] = wish.replace("UUID", shop.machine.cards[1].uuid)
    script = """
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
result = cuda.cuInit(0)
usable = 0
if not result:
    cuda.cuDeviceGetCount(byref(count))
    for device in range(count.value):
        context = c_void_p()
        usable += cuda.cuDevicePrimaryCtxRetain(byref(context), device) == 0
say.append(usable)
"""
    assert say(environment, script, begun=False) == [cards]


def test_row_25_a_card_that_is_unplugged_fails_its_programs_and_takes_no_other(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT, card=1)
    shop.machine.unplug(1)
    process = shop.start(environment, "info")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "total" not in out
    shop.machine.plug(1)
    environment["CUDA_VISIBLE_DEVICES"] = shop.machine.cards[1].uuid
    assert f"total {LIMIT}" in shop.run(environment, "info")


def test_a_slice_of_more_than_one_card_needs_each_of_them_once(shop: Shop) -> None:
    one = Slice("a", shop.machine.cards[0].uuid, SliceShape(LIMIT, 500_000), Guarantee.COOPERATIVE)
    with pytest.raises(YardError):
        shop.keeper.for_process("a", [one, one])
