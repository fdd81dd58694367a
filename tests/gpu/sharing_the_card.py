"""Steps of the check that share: what tenants get of the card's time beside each other, and what it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from bench_of_cards import Bench, has_torch

from gpuyard.hardware.probe import Finding
from gpuyard.slicing.shared_files import ComputeMode
from gpuyard.texts import in_words

Told = tuple[bool | None, dict[str, Any]]
GIB = 1 << 30
MEMORY = 8 * GIB
QUICK_S = 5.0
NO_TORCH: Told = (None, {"skipped": "PyTorch is not installed here: pip install torch"})


def _alone(bench: Bench, how: str = "plain") -> float:
    """Products a second of one bare program; measured once for each way."""
    known: dict[str, float] = bench.__dict__.setdefault("alone", {})
    if how not in known:
        known[how] = bench.products([bench.bare()], QUICK_S, how)[0]
    return known[how]


def _shares(
    bench: Bench, shares: tuple[int, ...], seconds: float, how: str = "plain", mode: ComputeMode = ComputeMode.CAP
) -> list[float]:
    """Percent of what one bare program does that each tenant gets."""
    rates = bench.products([bench.slice(MEMORY, share, mode) for share in shares], seconds, how)
    return [round(100 * rate / _alone(bench, how), 2) for rate in rates]


def _times(
    bench: Bench, shares: tuple[int, ...], how: str = "plain", mode: ComputeMode = ComputeMode.CAP
) -> list[float]:
    """Percent of the card's time that each tenant gets: kernels of fixed work, against one bare program."""
    known: dict[str, float] = bench.__dict__.setdefault("spins_alone", {})
    if how not in known:
        known[how] = bench.spins([bench.bare()], QUICK_S, how)[0]
    rates = bench.spins([bench.slice(MEMORY, share, mode) for share in shares], QUICK_S, how)
    return [round(100 * rate / known[how], 2) for rate in rates]


def time_alone(bench: Bench) -> Told:
    """Of the card's time a tenant that is alone gets its share and no more"""
    told: dict[str, Any] = {f"{share / 10_000:g} %": _times(bench, (share,))[0] for share in (62_500, 250_000, 500_000)}
    told["25 % by graphs"] = _times(bench, (250_000,), "graph")[0]
    told["whole"] = _times(bench, (1_000_000,))[0]
    held = abs(told["25 %"] - 25) <= 2 and abs(told["50 %"] - 50) <= 2 and abs(told["25 % by graphs"] - 25) <= 2
    return held and abs(told["6.25 %"] - 6.25) <= 2 and told["whole"] >= 99, told


def time_together(bench: Bench) -> Told:
    """Tenants beside each other get their shares of the card's time"""
    bare = bench.spins([bench.bare(), bench.bare()], QUICK_S)
    told = {
        "30 and 70": _times(bench, (300_000, 700_000)),
        "30 and 70 by graphs": _times(bench, (300_000, 700_000), "graph"),
        "four quarters": _times(bench, (250_000,) * 4),
        "half, lending, alone": _times(bench, (500_000,), mode=ComputeMode.BORROW),
        "two halves, lending": _times(bench, (500_000,) * 2, mode=ComputeMode.BORROW),
    }
    alone = bench.__dict__["spins_alone"]["plain"]
    within = [
        abs(got - want) <= 3
        for got, want in zip(told["30 and 70"] + told["four quarters"], [30, 70] + [25] * 4, strict=True)
    ]
    return all(within), {**told, "two bare programs": [round(100 * rate / alone, 2) for rate in bare]}


def whole_slice(bench: Bench) -> Told:
    """A tenant with the whole card loses nothing to the library"""
    if not has_torch():
        return NO_TORCH
    got = _shares(bench, (1_000_000,), QUICK_S)[0]
    return got >= 99.0, {"percent_of_bare": got, "bare_products_per_s": round(_alone(bench), 1)}


def _split(bench: Bench, how: str) -> Told:
    got = _shares(bench, (300_000, 700_000), bench.split_seconds, how)
    of_both = round(100 * got[0] / sum(got), 2)
    told = {"percent of one bare program": got, "first of both": of_both, "seconds": bench.split_seconds}
    return abs(of_both - 30) <= 3, told


def split(bench: Bench) -> Told:
    """Two tenants at 30 and 70 percent for a minute of matrix products"""
    return _split(bench, "plain") if has_torch() else NO_TORCH


def split_with_graphs(bench: Bench) -> Told:
    """The same with CUDA graphs of ten products"""
    return _split(bench, "graph") if has_torch() else NO_TORCH


def mps(bench: Bench) -> Told:
    """Whether an MPS daemon may run here, and what its limits do"""
    from gpuyard.model.slices import Guarantee, Slice, SliceShape
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.mps_trial import try_mps

    if bench.driver.mps_control is None:
        return None, {"nvidia-cuda-mps-control": "is not on this machine"}
    keeper = SliceKeeper(bench.folder / "mps", bench.driver)
    why = try_mps(keeper, [bench.uuid])[bench.uuid]
    told: dict[str, Any] = {
        "multiprocessors": keeper.multiprocessors.get(bench.uuid),
        "trial": in_words(why, "en") or "it holds",
    }
    if why is not None:
        return None, told  # no root, another program on the card: nothing is claimed there
    try:
        for programs in (1, 2) if has_torch() else ():
            cut = Slice("tenant", bench.uuid, SliceShape(MEMORY, 250_000), Guarantee.MPS)
            given = keeper.for_process("tenant", [cut]).environment
            environment = {**os.environ, **given, "CUDA_VISIBLE_DEVICES": bench.uuid}
            rates = bench.products([environment] * programs, QUICK_S)
            told[f"25 %, {programs} programs"] = [round(100 * rate / _alone(bench), 2) for rate in rates]
            keeper.release("tenant")
            keeper.watch_mps()
    finally:
        keeper.release("tenant")
        keeper.watch_mps()
    return True, told


def memory_limits_of_the_driver(bench: Bench) -> Told:
    """Whether the driver can limit memory itself (r615 and newer)"""
    driver = bench.nvml.nvmlSystemGetDriverVersion()
    told: dict[str, Any] = {"driver": driver}
    if shutil.which("nvidia-smi"):
        done = subprocess.run(
            ["nvidia-smi", "memory-limits", "-h"], capture_output=True, text=True, timeout=30, check=False
        )
        told["nvidia-smi memory-limits"] = (done.stdout or done.stderr).strip().splitlines()[:1]
    held, finding = _limited_by_the_driver(bench, frozenset())
    told["trial"] = {name: in_words(value, "en") for name, value in finding.params.items()}
    if bench.driver.mps_control is not None and held:  # static partitions, too
        _, finding = _limited_by_the_driver(bench, held)
        told["trial under MPS"] = {name: in_words(value, "en") for name, value in finding.params.items()}
    return bool(held) or None, told


def _limited_by_the_driver(bench: Bench, under_mps: frozenset[str]) -> tuple[frozenset[str], Finding]:
    from gpuyard.limiting import scratch_groups, try_kernel_on
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.mps_trial import multiprocessors

    keeper = SliceKeeper(bench.folder / "limits", bench.driver)
    if under_mps:
        keeper.multiprocessors.update(multiprocessors(bench.driver, [bench.uuid]))
    with scratch_groups() as groups:
        return try_kernel_on(keeper, frozenset({bench.uuid}), under_mps, groups, True)


STEPS = (time_alone, time_together, whole_slice, split, split_with_graphs, mps, memory_limits_of_the_driver)
