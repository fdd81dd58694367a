"""Who holds the memory of slices besides our library: the driver itself, where that is seen to work on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gpuyard.engines.local import LocalEngine
from gpuyard.engines.process.cgroup import unified_mount
from gpuyard.engines.process.runtime import ProcessRuntime
from gpuyard.hardware.probe import Finding
from gpuyard.model.said import Said, Why
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.kernel_limits import KernelLimits, missing_for, pass_on
from gpuyard.slicing.kernel_trial import try_kernel
from gpuyard.slicing.trial import aside, reasons

_OFF: Final = Said("kernel_limits.off")


def unit_groups(engine: LocalEngine) -> tuple[Path, Path] | None:
    """Where plain processes have their cgroups (v2), and where those are mounted."""
    runtime = engine.runtimes.get("process")
    return runtime.unit_groups if isinstance(runtime, ProcessRuntime) else None


@contextmanager
def scratch_groups() -> Iterator[tuple[Path, Path] | None]:
    """A place for cgroups (v2) that are only tried in, and where those are mounted; None where there is none."""
    mount = unified_mount()
    folder = Path(mount or "/", f"gpuyard-trial-{os.getpid()}")
    if mount is None or not os.access(mount, os.W_OK):
        yield None
        return
    try:
        yield folder, Path(mount)  # made with the first group in it
    finally:
        with suppress(OSError):
            folder.rmdir()


def try_kernel_on(
    keeper: SliceKeeper,
    cards: frozenset[str],
    under_mps: frozenset[str],
    groups: tuple[Path, Path] | None,
    wanted: bool | None,
) -> tuple[frozenset[str], Finding]:
    """On which of these cards the driver itself holds the memory of slices, and what the doctor says of it. It is tried
    unless it is not wanted: a limit touches nobody but the group that has it. `groups`: where units have their cgroups,
    and where those are mounted."""
    units, mount = groups or (None, None)
    lacking = missing_for(keeper.driver, units, mount)
    if lacking is not None or units is None or mount is None or keeper.driver.groups is None:
        detail = _OFF if wanted is False else lacking
        return frozenset(), Finding("kernel_limits", False if wanted else None, {"detail": detail})
    keeper.hold_by_kernel(KernelLimits(keeper.driver, units, mount, keeper.driver.groups))
    keeper.kernel_under_mps = under_mps
    if wanted is False:
        return frozenset(), Finding("kernel_limits", None, {"detail": _OFF})
    if wanted:
        pass_on(units, mount)
    told = _try_with_partitions(keeper, sorted(cards & under_mps - set(keeper.ceilings())))
    told |= try_kernel(keeper, sorted(cards - {uuid for uuid, why in told.items() if why is None}))
    held = frozenset(uuid for uuid, why in told.items() if why is None)
    detail = reasons(told) or (Said("trial.no_card"),)
    if not held:
        return held, Finding("kernel_limits", False if wanted else None, {"detail": detail})
    params = {"cards": len(held), "detail": aside(reasons(told)), "compute": _who_holds_compute(keeper, held)}
    return held, Finding("kernel_limits", True, params)


def _try_with_partitions(keeper: SliceKeeper, cards: Sequence[str]) -> dict[str, Why | None]:
    """Where MPS holds compute it does so by static partitions if it can: tried on cards that nobody has a slice of."""
    if keeper.mps is None or not cards:
        return {}
    keeper.mps.partition |= set(cards)
    told = try_kernel(keeper, cards)
    keeper.mps.partition -= {uuid for uuid, why in told.items() if why is not None}
    return told


def _who_holds_compute(keeper: SliceKeeper, cards: frozenset[str]) -> tuple[Said, ...]:

    under_mps = cards & keeper.kernel_under_mps
    divided = frozenset(uuid for uuid in under_mps if keeper.mps is not None and keeper.mps.is_divided(uuid))
    ways = {"by_gate": cards - under_mps, "by_mps": under_mps - divided, "by_partitions": divided}
    return tuple(Said(f"kernel_limits.{way}") for way, found in ways.items() if found)
