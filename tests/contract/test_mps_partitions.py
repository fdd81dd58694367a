"""Static partitions of cards under MPS, on an emulated machine and its control daemons."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.mps_partitions import PARTITION, Partition, Partitions, parse_division
from gpuyard.slicing.mps_trial import try_mps
from gpuyard.testing import Machine
from slices_in_hand import MIB, PRELUDE, Shop, compile_tenant, say

LIMIT = 2048 * MIB
QUARTER = 250_000
SEEN = """
value = ctypes.c_int()
cuda.cuDeviceGetAttribute(byref(value), 16, 0)
say.append(value.value)
"""
# As NVIDIA's guide prints it (MPS, Common Tasks, 13.1), in both of its examples.
OF_THE_GUIDE = """GPU           Partition                           free  used  free  used  clients
                                                  chunk chunk SM    SM
GPU-74d43ed3  -                                   0     10    0     80    -
GPU-74d43ed3  Dx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA -     5     -     40    Yes
GPU-74d43ed3  Cx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA -     3     -     24    Yes
GPU-74d43ed3  Bx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA -     2     -     28    Yes
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(program: Path) -> Iterator[Shop]:
    # The path of a socket may only be short: the folder of a test is not.
    with Machine("1xH100") as machine, tempfile.TemporaryDirectory() as folder:
        shop = Shop(machine, Path(folder) / "slices", program)
        assert shop.keeper.mps is not None
        shop.keeper.mps.partition = {machine.cards[0].uuid}
        yield shop
        shop.close()


def cut(shop: Shop, name: str, compute_ppm: int = QUARTER) -> dict[str, str]:
    environment = shop.cut(name, LIMIT, compute_ppm, 0, Guarantee.MPS)
    return {**environment, "CUDA_VISIBLE_DEVICES": shop.machine.cards[0].uuid}


def partitions(shop: Shop) -> Partitions:
    assert shop.keeper.mps is not None
    found = shop.keeper.mps.partitions(shop.machine.cards[0].uuid)
    assert found is not None
    return found


def test_what_the_control_program_lists_is_read_as_the_guide_prints_it() -> None:
    division = parse_division(OF_THE_GUIDE)
    assert (division.free_chunks, division.chunks) == (0, 10)
    assert division.partitions[2] == Partition("Bx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 2, 28)
    with pytest.raises(ValueError, match="no card"):
        parse_division("Unrecognized command: lspart")


def test_each_slice_has_multiprocessors_of_its_own_in_whole_chunks_and_the_last_one_the_rest(shop: Shop) -> None:
    seen = [say(cut(shop, name), SEEN)[0] for name in ("a", "b", "c", "d")]
    assert seen == [32, 32, 32, 36]  # of 132: chunks of 8, and 4 that no chunk is made of
    assert shop.keeper.given_multiprocessors("d") == {shop.machine.cards[0].uuid: 36}
    with pytest.raises(YardError) as refusal:
        cut(shop, "e")
    assert refusal.value.code == "mps_unavailable"


def test_a_slice_that_is_cut_again_keeps_its_partition_and_one_that_ends_gives_it_back(shop: Shop) -> None:
    assert cut(shop, "a")[PARTITION] == cut(shop, "a")[PARTITION]
    cut(shop, "b", 750_000)
    shop.keeper.release("a")
    shop.keeper.watch_mps()
    assert [each.chunks for each in partitions(shop).division().partitions] == [12]
    assert say(cut(shop, "c"), SEEN) == [32]


def test_a_program_that_names_no_partition_or_one_that_is_none_gets_no_context(shop: Shop) -> None:
    environment = cut(shop, "a")
    past = {**environment, **shop.keeper.driver.bare(), "GPUYARD_SLICE": ""}
    tried = f"{PRELUDE}\ncuda, context = ctypes.CDLL('libcuda.so.1'), c_void_p()\ncuda.cuInit(0)\n"
    tried += "say.append(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))"
    assert say(past, tried, begun=False) == [0]
    assert say({**past, PARTITION: f"{shop.machine.cards[0].uuid}/Dx4"}, tried, begun=False) == [915]
    del past[PARTITION]
    assert say(past, tried, begun=False) == [915]


def test_a_partition_that_was_made_for_nobody_is_removed(shop: Shop) -> None:
    cut(shop, "a")
    cut(shop, "b")
    # As if the yard had been killed between making it and writing it down.
    uuid = shop.machine.cards[0].uuid
    assert shop.keeper.mps is not None
    shop.keeper.mps.daemon(uuid).ask(f"sm_partition add {uuid} 2")
    shop.keeper.release("b")
    shop.keeper.watch_mps()
    assert len(partitions(shop).division().partitions) == 1


def test_the_next_yard_goes_on_with_the_partitions_without_being_told(shop: Shop) -> None:
    environment = cut(shop, "a")
    keeper = SliceKeeper(shop.keeper._root, shop.keeper.driver)
    keeper.multiprocessors = shop.keeper.multiprocessors
    keeper.watch_mps()
    assert keeper.mps is not None
    assert keeper.mps.is_divided(shop.machine.cards[0].uuid)
    assert say(environment, SEEN) == [32]
    assert try_mps(keeper, [shop.machine.cards[0].uuid]) == {shop.machine.cards[0].uuid: None}
    shop.keeper = keeper
    assert say(cut(shop, "b"), SEEN) == [32]


def test_after_a_dead_daemon_new_slices_have_partitions_and_old_names_lead_nowhere(shop: Shop) -> None:
    environment = cut(shop, "a")
    assert shop.keeper.mps is not None
    daemon = shop.keeper.mps.daemon(shop.machine.cards[0].uuid)
    for pid in (daemon.pid(), *daemon.servers()):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    while daemon.pid() is not None:
        time.sleep(0.01)
    (restart,) = shop.keeper.watch_mps()
    assert restart.reason is None
    past = {**environment, **shop.keeper.driver.bare(), "GPUYARD_SLICE": ""}
    tried = f"{PRELUDE}\ncuda, context = ctypes.CDLL('libcuda.so.1'), c_void_p()\ncuda.cuInit(0)\n"
    tried += "say.append(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))"
    assert say(past, tried, begun=False) == [915]
    assert say(cut(shop, "b"), SEEN) == [32]


def test_partitions_share_nothing_of_their_multiprocessors(program: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Machine("1xRTX4090", clock="virtual", processes=2, call_ns=1000) as machine,
    ):
        shop = Shop(machine, Path(folder) / "slices", program)
        assert shop.keeper.mps is not None
        shop.keeper.mps.partition = {machine.cards[0].uuid}
        running = [
            shop.start(cut(shop, name, share), "share", "kernel", 1_000_000, 4, 8)
            for name, share in (("a", QUARTER), ("b", 750_000))
        ]
        got = [int(each.communicate(timeout=120)[0].split()[-1]) * 1_000_000 / 4e9 * 100 for each in running]
        shop.close()
    assert got[0] == pytest.approx(25, abs=1.5)
    assert got[1] == pytest.approx(75, abs=1.5)
