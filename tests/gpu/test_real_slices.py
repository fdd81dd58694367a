"""Slices of a real card: the trial, and what a program inside of one gets. Runs with `make gpu-check`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from gpuyard.adapters import real_driver
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.building import PROBE
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.mps_trial import try_mps
from gpuyard.slicing.trial import try_cards, try_ways
from gpuyard.slicing.verify import Check, judge

pytestmark = pytest.mark.gpu
GIB = 1 << 30


@pytest.fixture(scope="module")
def card() -> Iterator[str]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA card here: {error}")
    yield str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)))
    pynvml.nvmlShutdown()


@pytest.fixture
def keeper(card: str) -> Iterator[SliceKeeper]:
    with tempfile.TemporaryDirectory() as folder:  # the path of an MPS daemon's socket may only be short
        yield SliceKeeper(Path(folder) / "slices", real_driver())


def environment(keeper: SliceKeeper, cut: Slice) -> dict[str, str]:
    given = keeper.for_process(cut.lease_id, [cut]).environment
    return {**os.environ, **given, "CUDA_VISIBLE_DEVICES": cut.card_uuid}


def test_the_library_holds_by_the_library_path_and_by_preloading(keeper: SliceKeeper, card: str) -> None:
    assert try_ways(keeper, [card]) == {card: None}
    keeper.preload = True
    assert try_cards(keeper, [card]) == {card: None}


@pytest.mark.parametrize(("share_ppm", "memory_bytes"), [(100_000, 4 * GIB), (250_000, 8 * GIB), (1_000_000, 8 * GIB)])
def test_a_program_inside_gets_no_more_than_its_slice(
    keeper: SliceKeeper, card: str, share_ppm: int, memory_bytes: int
) -> None:
    cut = Slice("alone", card, SliceShape(memory_bytes, share_ppm), Guarantee.COOPERATIVE)
    told = subprocess.run(
        [keeper.libraries / PROBE, "2000"], env=environment(keeper, cut), capture_output=True, timeout=120
    )
    checks = judge([cut], told.stdout)
    assert [check for check in checks if check.held is False] == []
    tried = {(check.name, check.way): check for check in checks}
    assert (tried["memory", "plain"].got or 0) >= memory_bytes * 3 // 4
    if share_ppm < 1_000_000:
        for way in ("kernels", "graphs"):
            assert (tried["compute", way].got or 0) >= share_ppm * 3 // 4


def test_two_slices_share_the_card_as_they_were_cut(keeper: SliceKeeper, card: str) -> None:
    cuts = [
        Slice(name, card, SliceShape(8 * GIB, share), Guarantee.COOPERATIVE)
        for name, share in (("three", 300_000), ("seven", 700_000))
    ]
    running = [
        subprocess.Popen([keeper.libraries / PROBE, "6000"], env=environment(keeper, cut), stdout=subprocess.PIPE)
        for cut in cuts
    ]
    checks: list[Check] = []
    for cut, process in zip(cuts, running, strict=True):
        checks += judge([cut], process.communicate(timeout=120)[0])
    assert [check for check in checks if check.held is False] == []


def test_mps_holds_a_slice_to_its_multiprocessors_where_it_may_run(keeper: SliceKeeper, card: str) -> None:
    if keeper.mps is None or os.geteuid() != 0:
        pytest.skip("MPS is not here, or this user may not set the card's compute mode")
    assert try_mps(keeper, [card]) == {card: None}
    cut = Slice("tenant", card, SliceShape(4 * GIB, 250_000), Guarantee.MPS)
    try:
        told = subprocess.run(
            [keeper.libraries / PROBE, "100"], env=environment(keeper, cut), capture_output=True, timeout=120
        )
        checks = judge([cut], told.stdout, keeper.multiprocessors)
    finally:
        keeper.release("tenant")
        keeper.watch_mps()
    assert [check for check in checks if check.held is False] == []
    assert keeper.mps.held() == frozenset()
