"""The gate: each slice gets its share of a card's time, whatever it launches and whoever else does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gpuyard.slicing.shared_files import ComputeMode
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

SECONDS = 3.0
MS = 1_000_000

CASES = [
    ((250_000,), "kernel", MS, 8),
    ((62_500,), "kernel", MS, 8),
    ((937_500,), "kernel", MS, 8),
    ((250_000,), "ptsz", 50_000, 8),
    ((250_000,), "kernel", 5_000, 100),
    ((250_000,), "graph", MS, 4),
    ((250_000,), "cooperative", MS, 8),
    ((300_000, 700_000), "kernel", MS, 8),
    ((62_500, 937_500), "kernel", MS, 8),
    ((250_000,) * 4, "kernel", MS, 8),
    ((300_000, 700_000), "kernel", 5 * MS, 2),
    # So many launches ahead, and the oldest is waited for, as frameworks do.
    ((250_000,), "kernel", MS // 5, -8),
    ((500_000,), "kernel", MS // 5, -4),
    ((500_000,), "kernel", MS, -8),
    ((300_000, 700_000), "kernel", MS // 5, -8),
    ((250_000,) * 4, "kernel", MS // 5, -8),
]
# What a card does that gives each of several busy programs its whole for a turn: nobody sees how a turn is cut off, so that
# shares are less exact. Every (shares, how, ns, every).
IN_TURNS = [
    ((300_000, 700_000), "kernel", MS // 5, -8),
    ((300_000, 700_000), "kernel", MS // 5, -64),
    ((300_000, 700_000), "kernel", MS // 5, 4),
    ((300_000, 700_000), "kernel", MS // 5, 8),
    ((300_000, 700_000), "graph", MS // 5, -8),
    ((250_000,) * 4, "kernel", MS // 5, -8),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


def reached(
    program: Path,
    shares: tuple[int, ...],
    how: str,
    ns: int,
    every: int,
    mode: ComputeMode = ComputeMode.CAP,
    turn_ns: int = 0,
) -> list[float]:
    """Percent of the card's time that each tenant got, on the virtual clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Machine("1xRTX4090", clock="virtual", processes=len(shares), call_ns=1000, turn_ns=turn_ns) as machine,
    ):
        shop = Shop(machine, Path(folder), program, mode)
        running = [
            shop.start(shop.cut(f"t{n}", 1024 * MIB, share), "share", how, ns, SECONDS, every)
            for n, share in enumerate(shares)
        ]
        counts: list[int] = []
        for process in running:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
            counts.append(int(out.split()[-1]) * (10 if how == "graph" else 1))
        shop.close()
    return [count * ns / 1e9 / SECONDS * 100 for count in counts]


@pytest.mark.parametrize(("shares", "how", "ns", "every"), CASES)
def test_a_slice_gets_its_share_within_two_points(
    program: Path, shares: tuple[int, ...], how: str, ns: int, every: int
) -> None:
    for got, share in zip(reached(program, shares, how, ns, every), shares, strict=True):
        assert abs(got - share / 10_000) <= 2


@pytest.mark.parametrize(("shares", "how", "ns", "every"), IN_TURNS)
def test_on_a_card_that_gives_turns_nobody_gets_much_more_than_its_share_nor_much_less(
    program: Path, shares: tuple[int, ...], how: str, ns: int, every: int
) -> None:
    for got, share in zip(reached(program, shares, how, ns, every, turn_ns=2 * MS), shares, strict=True):
        assert got - share / 10_000 <= 6
        assert share / 10_000 - got <= 14


def test_what_nobody_wants_is_lent_out_and_taken_back(program: Path) -> None:
    (alone,) = reached(program, (250_000,), "kernel", MS, 8, ComputeMode.BORROW)
    assert alone >= 97
    together = reached(program, (250_000, 750_000), "kernel", MS, 8, ComputeMode.BORROW)
    assert sum(together) >= 97
    assert abs(together[0] - 25) <= 3


def test_a_whole_card_is_not_held_back(program: Path) -> None:
    (whole,) = reached(program, (1_000_000,), "kernel", MS, 8)
    assert whole >= 98
