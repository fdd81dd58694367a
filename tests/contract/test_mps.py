"""Slices under MPS, on an emulated machine and its control daemons: what holds, and what happens when a daemon dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.compute_mode import CardMode, mode_of, set_mode
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.ledger import start_time_of
from gpuyard.slicing.mps import MpsCards
from gpuyard.slicing.mps_daemon import PIPES, SHARE, Ceiling, allowed_multiprocessors
from gpuyard.slicing.mps_trial import try_mps
from gpuyard.testing import Machine
from gpuyard.texts import in_words
from slices_in_hand import MIB, PRELUDE, Shop, compile_tenant, say

LIMIT = 2048 * MIB
QUARTER = 250_000
MS = 1_000_000
SEEN = """
value = ctypes.c_int()
cuda.cuDeviceGetAttribute(byref(value), 16, 0)
say.append(value.value)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(program: Path) -> Iterator[Shop]:
    # The path of a socket may only be short: the folder of a test is not.
    with Machine("2xRTX4090") as machine, tempfile.TemporaryDirectory() as folder:
        shop = Shop(machine, Path(folder) / "slices", program)
        yield shop
        shop.close()


def cut(shop: Shop, name: str, compute_ppm: int = QUARTER, card: int = 0) -> dict[str, str]:
    environment = shop.cut(name, LIMIT, compute_ppm, card, Guarantee.MPS)
    return {**environment, "CUDA_VISIBLE_DEVICES": shop.machine.cards[card].uuid}


def cards_under_mps(shop: Shop) -> MpsCards:
    assert shop.keeper.mps is not None
    return shop.keeper.mps


def mode(shop: Shop, card: int = 0) -> CardMode:
    return mode_of(shop.keeper.driver, shop.machine.cards[card].uuid)


def wait_until(what: object) -> None:
    deadline = time.monotonic() + 20
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_sees_its_part_of_the_multiprocessors_and_the_slice_holds_its_memory_once(shop: Shop) -> None:
    environment = cut(shop, "a")
    assert say(environment, SEEN) == [32]
    held = shop.start(environment, "hold", 1024 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    # MPS counts by process: it would let a second one have as much again. The ledger does not.
    assert "granted 0 " in shop.run(environment, "fill", "plain", 1024 * MIB)


def test_only_clients_of_its_server_use_a_card_under_mps_and_it_is_put_back_with_its_last_slice(shop: Shop) -> None:
    bare = {**os.environ, **shop.keeper.driver.bare(), "CUDA_VISIBLE_DEVICES": shop.machine.cards[0].uuid}
    try_it = [sys.executable, "-c", "import ctypes; d = ctypes.CDLL('libcuda.so.1'); d.cuInit(0); "
              "c = ctypes.c_void_p(); print(d.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0))"]  # fmt: skip
    set_mode(shop.keeper.driver, shop.machine.cards[0].uuid, CardMode.DEFAULT)
    for name in ("a", "b"):
        cut(shop, name)
    assert (mode(shop), mode(shop, 1)) == (CardMode.EXCLUSIVE_PROCESS, CardMode.DEFAULT)
    assert subprocess.run(try_it, env=bare, capture_output=True, text=True).stdout == "46\n"
    shop.keeper.release("a")
    shop.keeper.watch_mps()
    assert mode(shop) is CardMode.EXCLUSIVE_PROCESS
    shop.keeper.release("b")
    shop.keeper.watch_mps()
    assert mode(shop) is CardMode.DEFAULT
    assert cards_under_mps(shop).held() == frozenset()
    assert subprocess.run(try_it, env=bare, capture_output=True, text=True).stdout == "0\n"


def test_a_program_past_the_library_is_bounded_by_the_largest_slice_on_its_card(shop: Shop) -> None:
    environment = cut(shop, "a")
    cut(shop, "b", 500_000)
    past = {**environment, **shop.keeper.driver.bare()}
    del past[SHARE]
    assert say(past, SEEN) == [64]
    shop.keeper.release("b")
    shop.keeper.watch_mps()
    assert say(past, SEEN) == [32]


@pytest.mark.parametrize(
    ("shares", "programs"),
    [
        ((QUARTER,), (1,)),
        ((62_500,), (1,)),
        ((QUARTER,), (2,)),
        ((QUARTER, 750_000), (1, 1)),
        ((500_000, 500_000), (1, 2)),
        ((QUARTER, 750_000), (1, 2)),
        ((QUARTER, QUARTER), (1, 3)),
    ],
)
def test_a_slice_gets_its_share_of_the_card_however_many_programs_it_or_its_neighbour_runs(
    program: Path, shares: tuple[int, ...], programs: tuple[int, ...]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Machine("1xRTX4090", clock="virtual", processes=sum(programs), call_ns=1000) as machine,
    ):
        shop = Shop(machine, Path(folder) / "slices", program)
        environments = [cut(shop, f"t{number}", share) for number, share in enumerate(shares)]
        running = [
            [shop.start(environment, "share", "kernel", MS, 4, 8) for _ in range(count)]
            for environment, count in zip(environments, programs, strict=True)
        ]
        counts = [[int(each.communicate(timeout=120)[0].split()[-1]) for each in slice_] for slice_ in running]
        shop.close()
    for own, share, count in zip(counts, shares, programs, strict=True):
        got = sum(own) * MS / 4e9 * 100
        assert got - share / 10_000 <= 1
        # Several programs hand the slice over to each other, and lose some of it each time.
        assert share / 10_000 - got <= (1.5 if count == 1 else 4)


def test_a_program_for_several_cards_under_mps_is_refused(shop: Shop) -> None:
    shape = SliceShape(LIMIT, QUARTER)
    both = [Slice("a", card.uuid, shape, Guarantee.MPS) for card in shop.machine.cards]
    with pytest.raises(YardError) as refusal:
        shop.keeper.for_process("a", both)
    assert refusal.value.code == "mps_one_card"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: start_time_of(pid) is None)


def test_a_daemon_that_died_with_its_server_is_started_again_and_nobody_gets_in_before(shop: Shop) -> None:
    environment, uuid = cut(shop, "a"), shop.machine.cards[0].uuid
    daemon = cards_under_mps(shop).daemon(uuid)
    (server,), pid = daemon.servers(), daemon.pid()
    assert pid is not None
    kill(pid)
    kill(server)
    # Without a daemon the driver would give the program all of the card: the library refuses.
    process = shop.start(environment, "info")
    out, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert ("total" not in out, "MPS does not hold this program" in err) == (True, True)
    (told,) = shop.keeper.watch_mps()
    assert (told.card_uuid, told.reason) == (uuid, None)
    assert mode(shop) is CardMode.EXCLUSIVE_PROCESS
    assert say(environment, SEEN) == [32]
    assert shop.keeper.watch_mps() == ()


def test_a_server_that_outlives_its_daemon_keeps_the_card_until_its_programs_have_ended(shop: Shop) -> None:
    environment, uuid = cut(shop, "a"), shop.machine.cards[0].uuid
    held = shop.start(environment, "hold", 256 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    pid = cards_under_mps(shop).daemon(uuid).pid()
    assert pid is not None
    kill(pid)
    (told,) = shop.keeper.watch_mps()
    assert "outlived its daemon" in str(told.reason)
    assert mode(shop) is CardMode.PROHIBITED
    assert shop.keeper.watch_mps() == ()  # told once
    process = shop.start(environment, "info")
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert held.poll() is None
    held.kill()
    held.wait()
    wait_until(lambda: [each.reason for each in shop.keeper.watch_mps()] == [None])
    assert say(environment, SEEN) == [32]


def test_a_card_that_somebody_else_opened_to_all_is_shut_again(shop: Shop) -> None:
    cut(shop, "a")
    set_mode(shop.keeper.driver, shop.machine.cards[0].uuid, CardMode.DEFAULT)
    shop.keeper.strangers()
    assert (mode(shop), mode(shop, 1)) == (CardMode.EXCLUSIVE_PROCESS, CardMode.DEFAULT)


def test_a_new_yard_finds_the_daemons_of_the_one_before(shop: Shop) -> None:
    environment, uuid = cut(shop, "a"), shop.machine.cards[0].uuid
    pid = cards_under_mps(shop).daemon(uuid).pid()
    keeper = SliceKeeper(shop.keeper._root, shop.keeper.driver)
    assert set(keeper.ceilings()) == {uuid}
    assert try_mps(keeper, [uuid]) == {uuid: None}
    assert keeper.mps is not None
    assert keeper.mps.daemon(uuid).pid() == pid
    keeper.watch_mps()
    assert say(environment, SEEN) == [32]
    keeper.release("a")
    keeper.end_mps()
    assert keeper.mps.daemon(uuid).pid() is None
    assert mode(shop) is CardMode.DEFAULT


def test_a_fatal_fault_of_one_program_ends_the_others_of_its_card(shop: Shop) -> None:
    """What `mps_faults` says is not protected."""
    environment = cut(shop, "a")
    other = cut(shop, "b")
    script = """
import sys
print("ready", flush=True); sys.stdin.readline()
say.append(take(1 << 20)[0])
"""
    code = f"{PRELUDE}\nbegin()\n{script}\nprint(say[0])"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waits:
        assert waits.stdout is not None
        assert waits.stdout.readline() == "ready\n"
        shop.machine.inject("cuCtxSynchronize", 719)
        assert say(environment, "say.append(cuda.cuCtxSynchronize())") == [719]
        out, _ = waits.communicate("go\n", timeout=30)
    assert out == "719\n"
    assert say(cut(shop, "c", card=1), SEEN) == [32]


def test_the_trial_finds_mps_to_hold_and_leaves_no_trace(shop: Shop) -> None:
    uuids = [card.uuid for card in shop.machine.cards]
    assert try_mps(shop.keeper, uuids) == dict.fromkeys(uuids)
    assert (mode(shop), mode(shop, 1)) == (CardMode.DEFAULT, CardMode.DEFAULT)
    assert cards_under_mps(shop).held() == frozenset()
    assert shop.keeper.units() == frozenset()


def test_where_only_containers_run_the_daemon_has_a_shared_memory_of_its_own(shop: Shop) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes mount namespaces without more ado")
    mps, uuid = cards_under_mps(shop), shop.machine.cards[0].uuid
    mps.contained = True
    assert try_mps(shop.keeper, [uuid]) == {uuid: None}
    cut(shop, "a")
    own, pid = mps.shared_memory(uuid), mps.daemon(uuid).pid()
    assert own.parent == Path("/dev/shm")
    (own / "met").touch()
    assert [entry.name for entry in Path(f"/proc/{pid}/root/dev/shm").iterdir()] == ["met"]
    shop.keeper.release("a")
    shop.keeper.watch_mps()
    assert not own.exists()


def test_a_card_that_others_use_is_left_alone(shop: Shop) -> None:
    cooperative = shop.cut("a", LIMIT, QUARTER)
    with subprocess.Popen(
        [shop.program, "hold", str(64 * MIB)],
        env={**os.environ, **shop.keeper.driver.bare(), "CUDA_VISIBLE_DEVICES": shop.machine.cards[1].uuid},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as outsider:
        assert outsider.stdout is not None
        outsider.stdout.readline()
        told = try_mps(shop.keeper, [card.uuid for card in shop.machine.cards])
        outsider.kill()
    assert "slices that MPS does not hold" in str(in_words(told[shop.machine.cards[0].uuid], "en"))
    assert "programs use it now" in str(in_words(told[shop.machine.cards[1].uuid], "en"))
    assert "现在有程序在用此卡" in str(in_words(told[shop.machine.cards[1].uuid], "zh"))
    assert shop.run(cooperative, "info")


@pytest.mark.parametrize("what", ["no daemon starts", "the share is not held", "anybody gets in"])
def test_what_does_not_hold_is_not_claimed(program: Path, tmp_path: Path, what: str) -> None:
    """A control program that does not do what the real one does."""
    with Machine("1xRTX4090") as machine, tempfile.TemporaryDirectory() as folder:
        liar = tmp_path / "nvidia-cuda-mps-control"
        real = machine.mps_control
        lies = {
            "no daemon starts": "echo no GPU >&2; exit 1",
            "the share is not held": f"[ $# -gt 0 ] && exec {real} $*; sed 's/percentage.*25/percentage 100/' | {real}",
            "anybody gets in": f"exec {real} $*",
        }
        liar.write_text(f"#!/bin/sh\n{lies[what]}\n")
        liar.chmod(0o755)
        shop = Shop(machine, Path(folder) / "slices", program)
        driver = shop.keeper.driver
        object.__setattr__(driver, "mps_control", liar)
        keeper = SliceKeeper(Path(folder) / "others", driver)
        if what == "anybody gets in":
            machine.inject("nvmlDeviceSetComputeMode", 4, times=100)  # as for a user who is not root
        (uuid,) = [card.uuid for card in machine.cards]
        told = try_mps(keeper, [uuid])
        assert told[uuid] is not None
        assert keeper.units() == frozenset()
        shop.close()


def test_a_share_is_rounded_to_pairs_of_multiprocessors() -> None:
    assert [allowed_multiprocessors(128, ppm) for ppm in (62_500, 250_000, 300_000, 1_000_000)] == [8, 32, 40, 128]
    assert allowed_multiprocessors(132, 62_500) == 10
    assert Ceiling(62_500, 1).variables("/p")[SHARE] == "6.25"
    assert Ceiling(1, 1).variables("/p") == {
        PIPES: "/p",
        SHARE: "0.0001",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=1M",
    }
