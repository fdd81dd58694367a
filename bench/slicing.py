"""What a slice costs: instructions that the shim adds to calls, how near shares come to what was promised, and how much
memory ever goes over a limit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.figures import Figure, at_least, at_most
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.keeper import Driver, SliceKeeper
from gpuyard.slicing.shared_files import ComputeMode
from gpuyard.testing import Machine

HERE = Path(__file__).parent
TENANT = HERE.parent / "tests" / "contract" / "tenant.c"
NULL_CARD = "GPU-11111111-1111-1111-1111-111111111111"
GIB = 1 << 30
HOW = "callgrind instruction slope between n and 2n calls over a driver that does nothing"
SHARES = "device time on the virtual clock of the emulated card over 3 s, worst tenant"


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _costs(Path(folder))
        yield from _shares(Path(folder))
        yield _memory(Path(folder))


def _costs(folder: Path) -> Iterator[Figure]:
    program, driver = folder / "calls", folder / "null" / "libcuda.so.1"
    driver.parent.mkdir()
    _compile("-O2", HERE / "driver_calls.c", "-o", program, "-ldl")
    _compile("-O2", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", HERE / "null_driver.c", "-o", driver)
    keeper = SliceKeeper(folder / "slices", Driver(driver, None, {}, 0, turn_ns=0))
    bare = {**os.environ, "LD_LIBRARY_PATH": str(driver.parent)}
    whole, capped = (_cut(keeper, name, NULL_CARD, ppm, 20 * GIB) for name, ppm in (("whole", 10**6), ("cap", 999_999)))

    def added(environment: Mapping[str, str], what: str, count: int, live: int = 0) -> float:
        slope = _slope(program, environment, what, count, live) - _slope(program, bare, what, count, live)
        return round(slope, 1)  # start-up differs by a few instructions from run to run

    yield at_most("slicing.pass_through_added", added(whole, "pass", 500_000), "instr", 1, "HAMi-core ~40", HOW)
    yield at_most("slicing.launch_added", added(whole, "launch", 20_000), "instr", 30, "HAMi-core 217-247", HOW)
    yield at_most(
        "slicing.launch_added_capped", added(capped, "launch", 20_000), "instr", 100, "HAMi-core 242-283", HOW
    )
    few, many = added(whole, "memory", 5_000, 10), added(whole, "memory", 5_000, 100_000)
    yield at_most("slicing.alloc_free_added", few, "instr", 500, "HAMi-core 1,315-1,644", HOW + ", 10 live blocks")
    yield at_most(
        "slicing.alloc_free_added_100k", many, "instr", 500, "HAMi-core: linear", HOW + ", 100,000 live blocks"
    )


def _shares(folder: Path) -> Iterator[Figure]:
    program = folder / "tenant"
    _compile("-O1", TENANT, "-o", program, "-ldl", "-lpthread")
    kinds = (("kernel", 1_000_000, 8), ("kernel", 50_000, 8), ("kernel", 5_000, 100), ("kernel", 4_000_000, 2))
    mixes = [((share,), kind) for share in (62_500, 250_000, 500_000, 937_500) for kind in kinds]
    mixes += [((300_000, 700_000), kinds[0]), ((62_500, 937_500), kinds[0]), ((250_000,) * 4, kinds[0])]
    mixes += [((62_500,) * 16, kinds[0])]
    worst = max(_error(folder / f"mix{n}", program, shares, *kind, 1) for n, (shares, kind) in enumerate(mixes))
    how = SHARES.replace("3 s", "1 s") + ", kernels of 5 us to 4 ms"
    yield at_most("slicing.share_error", worst, "points", 2, "HAMi-core up to 63", how)
    # One of them is five points of a second by itself, and nothing that has begun is taken from the card again.
    long = max(
        _error(folder / f"long{n}", program, (share,), "kernel", 50_000_000, 1, 30)
        for n, share in enumerate((62_500, 500_000))
    )
    yield at_most("slicing.share_error_50ms", long, "points", 2, "-", SHARES.replace("3 s", "30 s") + ", 50 ms kernels")
    for how, peer in (("graph", "HAMi-core 99.5 %"), ("cooperative", "HAMi-core 96 %")):
        reached = 25 + _error(folder / how, program, (250_000,), how, 1_000_000, 4)
        yield at_most(f"slicing.quarter_by_{how}", reached, "%", 27, peer, SHARES)
    borrowed = sum(
        _reached(folder / "lend", program, (500_000, 500_000), "kernel", 1_000_000, 8, 3, ComputeMode.BORROW)
    )
    alone = sum(_reached(folder / "alone", program, (500_000,), "kernel", 1_000_000, 8, 3, ComputeMode.BORROW))
    least = min(borrowed, alone)
    yield at_least(
        "slicing.borrow_efficiency", least, "%", 97, "-", "two tenants at 1/2 together, and one alone, of a whole card"
    )


def _memory(folder: Path) -> Figure:
    """Sixteen processes of one slice allocate and free at random; what the card ever held beyond the limit."""
    limit = 4 * GIB
    with Machine("1xRTX4090", context_bytes=64 << 20) as machine:
        keeper = _keeper(folder / "churn", machine, ComputeMode.CAP, 64 << 20)
        environment = _cut(keeper, "churn", machine.cards[0].uuid, 10**6, limit)
        command = [str(folder / "tenant"), "churn"]
        running = [
            subprocess.Popen([*command, str(n), "6250"], env=environment, stdout=subprocess.DEVNULL) for n in range(16)
        ]
        failed = sum(process.wait() != 0 for process in running)
        over = max(0, machine.card(0).peak_bytes - limit)
    how = f"16 processes, 100,000 random operations; {failed} processes failed"
    return at_most(
        "slicing.memory_over_limit",
        float(over) if not failed else float("inf"),
        "bytes",
        0,
        "HAMi-core overshoots",
        how,
    )


def _error(
    folder: Path, program: Path, shares: tuple[int, ...], how: str, ns: int, every: int, seconds: float = 3
) -> float:
    reached = _reached(folder, program, shares, how, ns, every, seconds, ComputeMode.CAP)
    return max(abs(got - share / 10_000) for got, share in zip(reached, shares, strict=True))


def _reached(
    folder: Path,
    program: Path,
    shares: tuple[int, ...],
    how: str,
    ns: int,
    every: int,
    seconds: float,
    mode: ComputeMode,
) -> list[float]:
    """Percent of the card's time that each tenant got."""
    with Machine("1xRTX4090", clock="virtual", processes=len(shares), call_ns=1000) as machine:
        keeper = _keeper(folder, machine, mode, 400 << 20)
        words = [str(program), "share", how, str(ns), str(seconds), str(every)]
        running = [
            subprocess.Popen(
                words, env=_cut(keeper, f"t{n}", machine.cards[0].uuid, share, GIB), stdout=subprocess.PIPE, text=True
            )
            for n, share in enumerate(shares)
        ]
        kernels = [int(process.communicate()[0].split()[-1]) * (10 if how == "graph" else 1) for process in running]
    return [count * ns / 1e9 / seconds * 100 for count in kernels]


def _keeper(folder: Path, machine: Machine, mode: ComputeMode, context_bytes: int) -> SliceKeeper:
    cuda = machine.libraries / "libcuda.so.1"
    environment = {"GPUYARD_EMULATOR": str(machine.path), "EMULATOR": str(cuda)}
    return SliceKeeper(
        folder, Driver(cuda, machine.libraries / "libnvidia-ml.so.1", environment, context_bytes, turn_ns=0), mode
    )


def _cut(keeper: SliceKeeper, name: str, card: str, compute_ppm: int, memory_bytes: int) -> dict[str, str]:
    cut = keeper.for_process(name, [Slice(name, card, SliceShape(memory_bytes, compute_ppm), Guarantee.COOPERATIVE)])
    return {**os.environ, **cut.environment}


def _slope(program: Path, environment: Mapping[str, str], what: str, count: int, live: int) -> float:
    once, twice = (_instructions(program, environment, what, n, live) for n in (count, 2 * count))
    return (twice - once) / count


def _instructions(program: Path, environment: Mapping[str, str], what: str, count: int, live: int) -> int:
    if shutil.which("valgrind") is None:
        raise SystemExit("bench slicing counts instructions with valgrind: apt-get install valgrind")
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, what, str(count), str(live)]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    found = re.search(r"Collected : (\d+)", told)
    assert found, told
    return int(found.group(1))


def _compile(*arguments: str | Path) -> None:
    subprocess.run(["cc", "-w", *map(str, arguments)], check=True)
