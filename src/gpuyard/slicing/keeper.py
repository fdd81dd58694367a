"""Cuts and keeps the slices of this machine's units: their files, what a unit is given to use them, and their end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.slicing import building
from gpuyard.slicing.cdi import BindMount, DriverInside, Library
from gpuyard.slicing.device_files import openers
from gpuyard.slicing.escape import Stranger, card_look, strangers
from gpuyard.slicing.ledger import Holder, Usage, reap, usage
from gpuyard.slicing.shared_files import (
    ComputeMode,
    SliceCard,
    SliceLimits,
    create_clock,
    create_ledger,
    forget_tenant,
    is_slice_file,
    restore_ledger,
    write_slice_file,
)

VARIABLE: Final = "GPUYARD_SLICE"
# What a context takes before a program allocates anything, where it cannot be measured: an H100 with driver 580 takes
# 524 MiB.
CONTEXT_BYTES: Final = 544 << 20
# How long the driver lets one of several busy programs run before the next has its turn (its default time slice).
TURN_NS: Final = 2_000_000
_INSIDE: Final = Path("/run/gpuyard")  # where a container sees its slice
LIBRARIES_INSIDE: Final = _INSIDE / "lib"
_CONTAINED: Final = "contained"  # marks the slices of containers
REAP_EVERY_NS: Final = 500_000_000


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's libraries on this machine, and what a program needs besides to use them. `files`: files that it
    opens by the variable of that name (the emulator has one)."""

    cuda: Path
    nvml: Path | None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    context_bytes: int = CONTEXT_BYTES
    turn_ns: int = TURN_NS
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def variables(self) -> dict[str, str]:
        """For programs of this machine that use the driver."""
        return {**self.environment, **{name: str(file) for name, file in self.files.items()}}


@dataclass(frozen=True, slots=True)
class Cut:
    """What a unit is given: variables for a plain process, or variables and mounts for a container."""

    environment: Mapping[str, str]
    mounts: tuple[BindMount, ...] = ()


class SliceKeeper:
    """Slices below one folder that only the yard writes: `<root>/<unit>/{slice,ledger}` and `<root>/clocks/<card>`.

    Every method may be called again after it was cut short: what is there is kept, what is gone stays gone.
    """

    def __init__(self, root: Path, driver: Driver, mode: ComputeMode = ComputeMode.CAP) -> None:
        """Raises YardError `native_unavailable` where the shim is not there and cannot be built."""
        self._root = root
        self.driver = driver
        self._mode = mode
        self.libraries = building.built() / "shim"
        # Where programs find the driver past the library path (an RPATH, a wrapper that sets the path anew), they are
        # given the shim before anything else. It is then in every program of a unit, those without CUDA too.
        self.preload = False
        self._reaped_ns = 0
        (root / "clocks").mkdir(parents=True, exist_ok=True)
        for folder in (root, root / "clocks"):
            folder.chmod(0o755)  # tenants read what is theirs; the names below say nothing of anybody

    def for_process(self, unit: str, slices: Sequence[Slice]) -> Cut:
        """Cuts the slices of a unit that runs as a plain process. Raises YardError `slice_refused`."""
        folder = self._cut(unit, slices, self.driver.cuda, self.driver.nvml, None)
        paths = [str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = {**self.driver.variables(), VARIABLE: str(folder / "slice")}
        environment["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
        if self.preload:
            names = [target.soname for target in building.TARGETS if target.folder == "shim"]
            environment["LD_PRELOAD"] = ":".join(str(self.libraries / name) for name in names)
        return Cut(environment)

    def for_container(self, unit: str, slices: Sequence[Slice], driver: DriverInside) -> Cut:
        """Cuts the slices of a unit that runs in a container, where an engine puts the driver as `driver` says.

        The shim is mounted over the driver's own path, so that a program that opens it by that path meets the shim too;
        the driver moves to a private one. Raises YardError `slice_refused`.
        """
        cuda = Library(driver.cuda.here, _INSIDE / "driver" / "libcuda.so.1")
        nvml = driver.nvml and Library(driver.nvml.here, _INSIDE / "driver" / "libnvidia-ml.so.1")
        (self._root / unit).mkdir(exist_ok=True, mode=0o755)
        (self._root / unit / _CONTAINED).touch()
        folder = self._cut(unit, slices, cuda.inside, nvml and nvml.inside, _INSIDE)
        mounts = [
            BindMount(folder / "slice", _INSIDE / "slice", True),
            BindMount(folder / "ledger", _INSIDE / "ledger", False),
            BindMount(self.libraries, LIBRARIES_INSIDE, True),
        ]
        for private, public in ((cuda, driver.cuda), (nvml, driver.nvml)):
            if private is not None and public is not None:
                mounts.append(BindMount(private.here, private.inside, True))
                mounts.append(BindMount(self.libraries / private.inside.name, public.inside, True))
        for cut in slices:
            if cut.shape.compute_ppm < SHARE_WHOLE_PPM:
                mounts.append(BindMount(self._clock(cut.card_uuid), _INSIDE / "clocks" / cut.card_uuid, False))
        environment = {**self.driver.environment, VARIABLE: str(_INSIDE / "slice")}
        for name, file in self.driver.files.items():
            mounts.append(BindMount(file, _INSIDE / file.name, False))
            environment[name] = str(_INSIDE / file.name)
        return Cut(environment, tuple(mounts))

    def release(self, unit: str) -> None:
        """Ends a unit's slices. An unknown unit is no error."""
        folder = self._root / unit
        if not folder.exists():
            return
        for clock in (self._root / "clocks").iterdir():
            with suppress(YardError, OSError):  # spoilt: whoever comes next is refused until it is made anew
                forget_tenant(clock, unit)
        shutil.rmtree(folder, ignore_errors=True)

    def units(self, contained: bool | None = None) -> frozenset[str]:
        """The units that have slices; with `contained` those that run in containers, or those that do not."""
        cut = (entry for entry in self._root.iterdir() if (entry / "slice").exists())
        return frozenset(entry.name for entry in cut if contained is None or contained == (entry / _CONTAINED).exists())

    def usage(self, unit: str) -> Usage | None:
        """What a unit's slices hold; None where it has none. Raises YardError `shared_file_broken`."""
        ledger = self._root / unit / "ledger"
        return usage(ledger) if ledger.exists() else None

    def strangers(self) -> tuple[Stranger, ...]:
        """Processes of our units that use a card past their slice. Raises OSError where NVML does not answer."""
        units = self.units()
        if not units:
            return ()
        paths = [str(self.driver.cuda.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        library_path = {"LD_LIBRARY_PATH": ":".join(path for path in paths if path)}
        before, opened = self._holders(units), openers(units)
        look = card_look({**self.driver.variables(), **library_path})
        # What was allocated or freed while NVML was asked is in one of the two looks. A device is open in both: the
        # child of a program on a slice has it too, until it begins its own.
        opened = opened & openers(units) if look.device_tells else frozenset()
        return strangers(look.uses, (*before, *self._holders(units)), units, opened)

    def _holders(self, units: Collection[str]) -> list[Holder]:
        found: list[Holder] = []
        for unit in units:
            with suppress(YardError):  # spoilt by its tenant, who has then no slots: all of its processes are strangers
                seen = self.usage(unit)
                found += seen.holders if seen is not None else ()
        return found

    def reap_at(self, now_ns: int) -> None:
        """Reaps where the last time is half a second ago: whoever looks at units calls this, however often."""
        if now_ns - self._reaped_ns >= REAP_EVERY_NS:
            self._reaped_ns = now_ns
            self.reap()

    def reap(self) -> Mapping[str, Sequence[Holder]]:
        """Gives back what dead processes held, in every slice, and says who they were."""
        found: dict[str, Sequence[Holder]] = {}
        for unit in self.units():
            ledger = self._root / unit / "ledger"
            try:
                dead = reap(ledger)
            except YardError:
                with suppress(OSError):  # it was released meanwhile
                    if is_slice_file(self._root / unit / "slice"):  # else its ledger is as another version made it
                        restore_ledger(ledger)
                continue
            except OSError:
                continue  # it was released meanwhile
            if dead:
                found[unit] = dead
        return found

    def _cut(self, unit: str, slices: Sequence[Slice], cuda: Path, nvml: Path | None, inside: Path | None) -> Path:
        folder = self._root / unit
        seen = inside or folder
        cards: list[SliceCard] = []
        for cut in slices:
            whole = cut.shape.compute_ppm >= SHARE_WHOLE_PPM
            clock = None if whole else self._clock(cut.card_uuid)
            if clock is not None:
                create_clock(clock)
            placed = clock if inside is None or clock is None else inside / "clocks" / clock.name
            # A slice that is smaller than a context holds none: its programs are told that there is no memory.
            context, turn = min(self.driver.context_bytes, cut.shape.memory_bytes - 1), self.driver.turn_ns
            memory, compute = cut.shape.memory_bytes, cut.shape.compute_ppm
            cards.append(SliceCard(cut.card_uuid, memory, compute, context, self._mode, placed, turn))
        limits = SliceLimits(unit, cards, seen / "ledger", cuda, nvml)
        limits.check()
        folder.mkdir(exist_ok=True, mode=0o755)
        create_ledger(folder / "ledger")
        write_slice_file(folder / "slice", limits)
        return folder

    def _clock(self, card_uuid: str) -> Path:
        return self._root / "clocks" / card_uuid


def enforced(level: Guarantee) -> bool:
    """Whether a slice of this guarantee is cut by the shim."""
    return level is Guarantee.COOPERATIVE
