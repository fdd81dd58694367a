"""Bad input and faults that slices must survive, one numbered row after the other; what other files test is named there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.units import parse_share, parse_size
from gpuyard.slicing.layout import layout
from gpuyard.slicing.ledger import Holder, Living, namespace_of, start_time_of, usage
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant, forge, say

LIMIT = 2048 * MIB
CONTEXT = 400 * MIB
TESTS = Path(__file__).resolve().parents[1]

# Row -> what goes wrong, and the tests that hold what happens then, by the beginnings of their names: all of them are of
# that row alone.
HERE, RUNNING = "contract/test_slice_faults.py", "contract/test_slice_faults_running.py"
ROWS: dict[int, tuple[str, ...]] = {
    1: ("a limit that is no size", f"{HERE}::test_row_01"),
    2: (
        "a share that is no share, or more than there is",
        f"{HERE}::test_row_02",
        "property/test_scheduling_engines.py::test_no_card_and_no_node_is_ever_oversold",
    ),
    3: (
        "the slice file is missing, cut off, a link, of another owner",
        "contract/test_shim_refusals.py::test_a_file_that_is_missing",
        "contract/test_shim_refusals.py::test_a_file_of_somebody_else",
        "contract/test_shim_refusals.py::test_a_file_of_another_size",
    ),
    4: ("the ledger is cut off, garbage, of another version", f"{HERE}::test_row_04"),
    5: ("sizes of 0 and of nearly 2^64", f"{HERE}::test_row_05"),
    6: ("the driver is out of memory below the limit", "contract/test_shim_memory.py::test_a_driver_that_is_out_of"),
    7: ("kill -9, also with the lock", f"{HERE}::test_row_07"),
    8: ("pids used again, pid namespaces", f"{HERE}::test_row_08"),
    9: ("fork, fork after CUDA, vfork and exec", f"{HERE}::test_row_09"),
    10: ("exit without free, context destroy, device reset", f"{HERE}::test_row_10"),
    11: ("freed by another thread, sync and async mixed", f"{HERE}::test_row_11"),
    12: ("double free, foreign and null pointers", f"{HERE}::test_row_12"),
    13: ("the table of processes is full", f"{HERE}::test_row_13"),
    14: ("entry points that are too new, or that the driver lacks", f"{RUNNING}::test_row_14"),
    15: (
        "graphs, cooperative, per-thread and multi-device launches",
        f"{RUNNING}::test_row_15",
        "contract/test_shim_compute.py::test_a_slice_gets_its_share_within_two_points",
    ),
    16: ("a stream that is being captured", f"{RUNNING}::test_row_16"),
    17: ("one kernel of ten seconds", f"{RUNNING}::test_row_17"),
    18: ("a neighbour that is idle or stopped, with the clock's lock too", f"{RUNNING}::test_row_18"),
    19: ("the clock steps, the machine was suspended", f"{RUNNING}::test_row_19"),
    20: ("the yard is killed", f"{RUNNING}::test_row_20"),
    21: (
        "MPS is not as it was asked for",
        f"{RUNNING}::test_row_21",
        "contract/test_mps.py::test_a_daemon_that_died_with_its_server_is_started_again_and_nobody_gets_in_before",
    ),
    22: ("a tenant writes into its ledger", f"{RUNNING}::test_row_22"),
    23: (
        "a program goes around the library",
        "contract/test_escape.py::test_row_23",
        "integration/test_process_slices.py::test_a_program_that_goes_around",
    ),
    24: ("other preloads, RTLD_NEXT, DEEPBIND, dlmopen, another C library", f"{RUNNING}::test_row_24"),
    25: ("CUDA_VISIBLE_DEVICES of every kind, a card unplugged", f"{RUNNING}::test_row_25"),
}


@pytest.mark.parametrize("row", range(1, 26))
def test_every_row_has_a_test_of_its_own(row: int) -> None:
    _, *named = ROWS[row]
    assert named
    for each in named:
        file, _, name = each.partition("::")
        assert re.search(rf"^def {name}", (TESTS / file).read_text(), re.MULTILINE), each
    others = {each for other, (_, *theirs) in ROWS.items() if other != row for each in theirs}
    assert others.isdisjoint(named)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(tmp_path: Path, program: Path) -> Iterator[Shop]:
    with Machine("2xRTX4090") as machine:
        shop = Shop(machine, tmp_path / "slices", program)
        yield shop
        shop.close()


@pytest.mark.parametrize("text", ["", "abc", "-1", "0", "1.5g", "1gb", str(2**64), "1GiB ", "1e9", "0x10", "nan"])
def test_row_01_a_limit_that_is_no_size_never_becomes_a_slice(text: str, shop: Shop) -> None:
    with pytest.raises(YardError):
        shop.cut("a", parse_size(text))
    assert not (shop.keeper._root / "a" / "slice").exists()


@pytest.mark.parametrize("text", ["", "0", "-1", "1.1", "101%", "nan", "inf", "1/0", "2/1", "0/4", "abc", "1e-9"])
def test_row_02_a_share_that_is_no_share_never_becomes_a_slice(text: str, shop: Shop) -> None:
    with pytest.raises(YardError):
        shop.cut("a", LIMIT, parse_share(text))


def test_row_02_a_share_is_at_most_the_whole_card() -> None:
    from gpuyard.model.units import SHARE_WHOLE_PPM

    with pytest.raises(YardError):
        parse_share("100.0001%")
    assert parse_share("100%") == SHARE_WHOLE_PPM


@pytest.mark.parametrize("damage", ["cut off", "empty", "magic", "version", "size", "zeros"])
def test_row_04_a_spoilt_ledger_gives_nothing_until_the_yard_restores_it(shop: Shop, damage: str) -> None:
    environment = shop.cut("a", LIMIT)
    ledger = shop.keeper._root / "a" / "ledger"
    content = bytearray(ledger.read_bytes())
    at = {"magic": 0, "version": 8, "size": 12}.get(damage, 0)
    if damage in {"cut off", "empty"}:
        os.truncate(ledger, 100 if damage == "cut off" else 0)
    else:
        content[at : at + (len(content) if damage == "zeros" else 4)] = bytes(len(content) if damage == "zeros" else 4)
        ledger.write_bytes(content)
    process = shop.start(environment, "init")
    out, err = process.communicate(timeout=30)
    assert (out.strip(), len(err.splitlines())) == ("cuInit 800", 1)
    shop.keeper.reap()
    assert shop.run(environment, "info").startswith(f"free {LIMIT - CONTEXT} total {LIMIT}")


def test_row_04_restoring_keeps_what_processes_hold(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    held = shop.start(environment, "hold", 1024 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    ledger = shop.keeper._root / "a" / "ledger"
    with ledger.open("r+b") as file:
        file.write(b"\xff" * 8)
    shop.keeper.reap()
    assert usage(ledger).used_bytes[0] == CONTEXT + 1024 * MIB


def test_row_04_a_full_disk_is_met_when_the_slice_is_cut(shop: Shop, tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            shop.cut("a", LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert shop.run(shop.cut("a", LIMIT), "info")


def test_row_05_sizes_at_both_ends_change_nothing(shop: Shop) -> None:
    script = f"""
for size in (0, 2**64 - 1, 2**64 - 4096, 2**63, 2**64 - {CONTEXT - 1}): say.append([take(size)[0] != 0, used()])
"""
    assert say(shop.cut("a", LIMIT), script) == [[True, CONTEXT]] * 5


def test_row_07_a_process_that_dies_with_the_lock_keeps_nobody_waiting(shop: Shop, tmp_path: Path) -> None:
    preload = tmp_path / "die.so"
    source = tmp_path / "die.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <pthread.h>\n#include <signal.h>\n#include <stdlib.h>\n"
        "int pthread_mutex_trylock(pthread_mutex_t *m) { static int n;\n"
        ' int r = ((int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_trylock"))(m);\n'
        ' if (!r && ++n == atoi(getenv("DIE_AT"))) raise(SIGKILL); return r; }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", preload, source, "-ldl"], check=True)
    environment = shop.cut("a", LIMIT)
    for at in range(1, 40, 6):
        doomed = shop.start({**environment, "LD_PRELOAD": str(preload), "DIE_AT": str(at)}, "churn", 1, 100000)
        assert doomed.wait(30) == -signal.SIGKILL
        begun = time.monotonic()
        shop.keeper.reap()
        assert time.monotonic() - begun < 0.1
        seen = shop.keeper.usage("a")
        assert seen is not None
        assert seen.used_bytes[0] == 0
    assert shop.run(environment, "info").startswith(f"free {LIMIT - CONTEXT} total {LIMIT}")


def test_row_08_a_pid_that_is_another_process_by_now_holds_nothing(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    here, started = namespace_of() or 0, start_time_of(os.getpid()) or 0
    forge(shop, "a", 0, pid=os.getpid(), start_time=started + 1, pid_namespace=here, used=1024 * MIB)
    assert shop.run(environment, "info").startswith(f"free {LIMIT - CONTEXT} ")
    seen = shop.keeper.usage("a")
    assert seen is not None
    assert seen.holders == ()


def test_row_08_the_living_of_another_namespace_are_told_from_the_dead_by_their_pid_there() -> None:
    sleeper = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]
    if os.geteuid() != 0:
        pytest.skip("only root makes pid namespaces without more ado")
    with subprocess.Popen(sleeper) as outer:
        try:
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
            deadline = time.monotonic() + 10
            while not children.read_text().split():
                assert time.monotonic() < deadline
            child = int(children.read_text().split()[0])
            space, started = namespace_of(child) or 0, start_time_of(child) or 0
            assert space != namespace_of()
            assert Living().has(Holder(1, started, space, ()))
            assert not Living().has(Holder(2, started, space, ()))  # that pid is nobody there
            assert not Living().has(Holder(1, started + 1, space, ()))
        finally:
            outer.kill()


def test_row_09_children_begin_empty_and_cost_nothing_twice(shop: Shop) -> None:
    script = """
say.append(take(512 << 20)[0])
import subprocess
child = subprocess.run(["true"])  # by vfork and exec where Python can
say += [child.returncode, used() >> 20]
pid = os.fork()
if pid == 0:
    os._exit(cuda.cuInit(0) == 0)  # the driver refuses a child of one that used it
say += [os.waitpid(pid, 0)[1], used() >> 20]
"""
    assert say(shop.cut("a", LIMIT), script) == [0, 0, 512 + CONTEXT // MIB, 0, 512 + CONTEXT // MIB]


def test_row_09_a_child_that_forks_before_cuda_has_a_slot_of_its_own(shop: Shop) -> None:
    script = """
pid = os.fork()
begin()
say += [take(256 << 20)[0]]
if pid == 0: os._exit(say[0])
say += [os.waitpid(pid, 0)[1], used() >> 20]
"""
    told = say(shop.cut("a", LIMIT), script, begun=False)
    assert told[:2] == [0, 0]
    assert told[2] in {256 + CONTEXT // MIB, 2 * (256 + CONTEXT // MIB)}  # the child may be reaped or not yet


def test_row_10_what_a_context_held_comes_back_with_it(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    script = """
take(512 << 20)
say.append(cuda.cuDevicePrimaryCtxReset_v2(0))
assert cuda.cuDevicePrimaryCtxRetain(byref(context), 0) == 0 and cuda.cuCtxSetCurrent(context) == 0
say.append(used() >> 20)
other = c_void_p()
assert cuda.cuCtxCreate_v2(byref(other), 0, 0) == 0
take(512 << 20)
say += [used() >> 20, cuda.cuCtxDestroy_v2(other)]
assert cuda.cuCtxSetCurrent(context) == 0
say.append(used() >> 20)
take(256 << 20)
"""
    one = CONTEXT // MIB
    assert say(environment, script) == [0, one, 2 * one + 512, 0, one]
    assert shop.run(environment, "info").startswith(f"free {LIMIT - CONTEXT} ")  # it ended without freeing


def test_row_11_memory_is_exact_whoever_frees_it_and_however(shop: Shop) -> None:
    script = """
pointers = [take(64 << 20)[1] for _ in range(4)]
def free(pointer):
    cuda.cuCtxSetCurrent(context)
    say.append(cuda.cuMemFree_v2(pointer))
threads = [threading.Thread(target=free, args=(pointer,)) for pointer in pointers[:3]]
for thread in threads: thread.start()
for thread in threads: thread.join()
say.append(cuda.cuMemFreeAsync(pointers[3], None))
later = c_uint64()
say += [cuda.cuMemAllocAsync(byref(later), c_size_t(64 << 20), None), cuda.cuMemFree_v2(later)]
pool = c_void_p()
cuda.cuStreamSynchronize(None)
cuda.cuDeviceGetDefaultMemPool(byref(pool), 0)
cuda.cuMemPoolTrimTo(pool, c_size_t(0))
say.append(used() >> 20)
"""
    assert say(shop.cut("a", LIMIT), script) == [0] * 6 + [CONTEXT // MIB]


def test_row_12_what_cannot_be_freed_gets_the_drivers_answer_and_costs_nothing(shop: Shop) -> None:
    script = """
pointer = take(64 << 20)[1]
say += [cuda.cuMemFree_v2(pointer), cuda.cuMemFree_v2(pointer) != 0, cuda.cuMemFree_v2(c_uint64(12345)) != 0]
say += [cuda.cuMemFree_v2(c_uint64(0)), cuda.cuMemFreeAsync(c_uint64(12345), None) != 0]
say += [cuda.cuArrayDestroy(c_void_p(12345)) != 0, cuda.cuMemRelease(c_uint64(12345)) != 0, used() >> 20]
"""
    told = say(shop.cut("a", LIMIT), script)
    assert told == [0, True, True, 0, True, True, True, CONTEXT // MIB]


def test_row_13_a_full_table_is_refused_in_one_line_at_once(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    here, started = namespace_of() or 0, start_time_of(os.getpid()) or 0
    for slot in range(layout().constants["LEDGER_SLOTS"]):
        forge(shop, "a", slot, pid=os.getpid(), start_time=started, pid_namespace=here)
    begun = time.monotonic()
    process = shop.start(environment, "init")
    out, err = process.communicate(timeout=30)
    assert (out.strip(), "no place for one more process" in err) == ("cuInit 800", True)
    assert time.monotonic() - begun < 5
    forge(shop, "a", 1023, pid=0)
    assert shop.run(environment, "info")
