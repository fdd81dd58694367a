"""Cuts and keeps the slices of this machine's units: their files, what a unit is given to use them, and their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.slicing import building
from gpuyard.slicing.cdi import BindMount, DriverInside, Library
from gpuyard.slicing.device_files import openers, unit_of
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.escape import CardLook, Stranger, card_look, strangers
from gpuyard.slicing.kernel_limits import REAL_MOUNT, KernelLimits
from gpuyard.slicing.kernel_units import NOTE, KernelUnits
from gpuyard.slicing.ledger import Holder, Usage, reap, usage
from gpuyard.slicing.mps import MpsCards, Restart
from gpuyard.slicing.mps_daemon import SHARED_MEMORY, Ceiling, allowed_multiprocessors
from gpuyard.slicing.shared_files import (
    ComputeMode,
    SliceCard,
    SliceLimits,
    cards_of,
    create_clock,
    create_ledger,
    forget_tenant,
    is_slice_file,
    restore_ledger,
    write_slice_file,
)

VARIABLE: Final = "GPUYARD_SLICE"
_INSIDE: Final = Path("/run/gpuyard")  # where a container sees its slice
LIBRARIES_INSIDE: Final = _INSIDE / "lib"
DRIVER_INSIDE: Final = _INSIDE / "driver"
_CONTAINED: Final = "contained"  # marks the slices of containers
_PRELOADED: Final = "preloaded"
_NOT_HERE: Final = "the driver's memory limits are not here"
REAP_EVERY_NS: Final = 500_000_000


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
        self._reaped_ns = 0
        # Cards under MPS, where this machine's driver has that; and how many multiprocessors cards have.
        self.mps = MpsCards(root / "mps", driver, driver.mps_control) if driver.mps_control is not None else None
        self.multiprocessors: dict[str, int] = {}
        # Where the driver itself limits memory; and on which cards MPS holds the compute of such slices.
        self.kernel: KernelUnits | None = None
        self.kernel_under_mps: frozenset[str] = frozenset()
        self._changing: defaultdict[str, RLock] = defaultdict(RLock)  # whether a card is under MPS, by its UUID
        (root / "clocks").mkdir(parents=True, exist_ok=True)
        for folder in (root, root / "clocks"):
            folder.chmod(0o755)  # tenants read what is theirs; the names below say nothing of anybody

    @property
    def preload(self) -> bool:
        """Where programs find the driver past the library path (an RPATH, a wrapper that sets the path anew), they are
        given the shim before anything else. It is then in every program of a unit, those without CUDA too."""
        return (self._root / _PRELOADED).exists()

    @preload.setter
    def preload(self, wanted: bool) -> None:
        if wanted:
            (self._root / _PRELOADED).touch()
        else:
            (self._root / _PRELOADED).unlink(missing_ok=True)

    def hold_by_kernel(self, limits: KernelLimits) -> None:
        """From now on the driver itself limits the memory of slices that say so."""
        self.kernel = KernelUnits(self._root, limits)

    def for_process(self, unit: str, slices: Sequence[Slice]) -> Cut:
        """Cuts the slices of a unit that runs as a plain process.

        Raises YardError `slice_refused`, and `mps_unavailable` or `kernel_unavailable` where MPS or the driver must
        hold one and does not.
        """
        self._limit_by_kernel(unit, slices)
        folder = self._cut(unit, slices, self.driver.cuda, self.driver.nvml, None)
        paths = [str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = {**self.driver.variables(), VARIABLE: str(folder / "slice")}
        environment["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
        if self.preload:
            names = [target.soname for target in building.TARGETS if target.folder == "shim"]
            environment["LD_PRELOAD"] = ":".join(str(self.libraries / name) for name in names)
        for cut in slices:
            if self.mps is not None and self._is_under_mps(cut):
                environment.update(self._client(unit, cut)[0])
        return Cut(environment)

    def for_container(self, unit: str, slices: Sequence[Slice], driver: DriverInside) -> Cut:
        """Cuts the slices of a unit that runs in a container, where an engine puts the driver as `driver` says.

        The shim is mounted over the driver's own path, so that a program that opens it by that path meets the shim too;
        the driver moves to a private one. Raises YardError as `for_process` does.
        """
        cuda = Library(driver.cuda.here, DRIVER_INSIDE / "libcuda.so.1")
        nvml = driver.nvml and Library(driver.nvml.here, DRIVER_INSIDE / "libnvidia-ml.so.1")
        (self._root / unit).mkdir(exist_ok=True, mode=0o755)
        (self._root / unit / _CONTAINED).touch()
        if limited := _limited(slices):
            if self.kernel is None:
                raise YardError("kernel_unavailable", card=min(limited), reason=_NOT_HERE)
            self.kernel.expect(unit, limited)
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
        environment = {**self.driver.environment, VARIABLE: str(_INSIDE / "slice")}
        for cut in slices:
            clock = self._clock(unit, cut)
            if clock is not None:
                mounts.append(BindMount(clock, _INSIDE / "clocks" / cut.card_uuid, False))
            if self.mps is not None and self._is_under_mps(cut):
                mounts.append(BindMount(self.mps.pipes(cut.card_uuid), _INSIDE / "mps", False))
                mounts.append(BindMount(self.mps.shared_memory(cut.card_uuid), SHARED_MEMORY, False))
                environment.update(self._client(unit, cut, _INSIDE / "mps")[0])
        if self.kernel is not None and self.kernel.limits.seen != REAL_MOUNT:
            seen = self.kernel.limits.seen  # which an emulated driver reads
            mounts.append(BindMount(seen, seen, True))
        for name, file in self.driver.files.items():
            mounts.append(BindMount(file, _INSIDE / file.name, False))
            environment[name] = str(_INSIDE / file.name)
        return Cut(environment, tuple(mounts))

    def waits_for_limits(self, unit: str) -> bool:
        """Whether a container's program may begin only after `limit_container`."""
        return (self._root / unit / NOTE).exists()

    def limit_container(self, unit: str, pid: int) -> None:
        """Has the driver limit the device memory of a container, by the first process in it. Raises YardError
        `kernel_unavailable` where that does not hold."""
        try:
            if self.kernel is None:
                raise OSError(_NOT_HERE)
            self.kernel.hold_in(unit, pid)
        except OSError as error:
            raise YardError("kernel_unavailable", card="--", reason=f"{unit}: {error}") from error

    def release(self, unit: str) -> None:
        """Ends a unit's slices. An unknown unit is no error."""
        folder = self._root / unit
        if not folder.exists():
            return
        for clock in (self._root / "clocks").iterdir():
            with suppress(YardError, OSError):  # spoilt: whoever comes next is refused until it is made anew
                forget_tenant(clock, unit)
        if self.kernel is not None:
            self.kernel.end(unit)
        shutil.rmtree(folder, ignore_errors=True)

    def units(self, contained: bool | None = None) -> frozenset[str]:
        """The units that have slices; with `contained` those that run in containers, or those that do not."""
        cut = (entry for entry in self._root.iterdir() if (entry / "slice").exists())
        return frozenset(entry.name for entry in cut if contained is None or contained == (entry / _CONTAINED).exists())

    def usage(self, unit: str) -> Usage | None:
        """What a unit's slices hold; None where it has none. Raises YardError `shared_file_broken`."""
        ledger = self._root / unit / "ledger"
        return usage(ledger) if ledger.exists() else None

    def given_multiprocessors(self, unit: str) -> dict[str, int]:
        """How many multiprocessors of each card a unit's slices have under MPS."""
        try:
            return {card.uuid: card.multiprocessors for card in cards_of(self._root / unit / "slice") if card.mps_ppm}
        except OSError:  # it has none
            return {}

    def strangers(self) -> tuple[Stranger, ...]:
        """Processes of our units that use a card past their slice. Raises OSError where NVML does not answer."""
        units = self.units()
        if not units:
            return ()
        before, opened = self._holders(units), openers(units)
        look = card_look(self.driver.bare(), self.kernel.asked() if self.kernel is not None else ())
        if self.mps is not None:
            with self._nothing_changes(look.modes):
                self.mps.shut_again(look.modes, self.ceilings())
        # What was allocated or freed while NVML was asked is in one of the two looks. A device is open in both: the
        # child of a program on a slice has it too, until it begins its own.
        opened = opened & openers(units) if look.device_tells else frozenset()
        self._watch_kernel(look, units, opened)
        return strangers(look.uses, (*before, *self._holders(units)), units, opened)

    def _watch_kernel(self, look: CardLook, units: Collection[str], opened: Collection[int]) -> None:
        if self.kernel is not None:
            pids = {use.pid for use in look.uses} | set(opened)
            self.kernel.look(look.limits, [(unit, pid) for pid in pids if (unit := unit_of(pid)) in units])

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

    def ceilings(self) -> dict[str, Ceiling]:
        """The cards with slices under MPS, each with the most that one of them has."""
        found: dict[str, Ceiling] = {}
        for card in self._slice_cards():
            if card.multiprocessors:
                own = Ceiling(card.mps_ppm, card.memory_bytes)
                found[card.uuid] = found.get(card.uuid, own).over(own)
        return found

    def cooperative_cards(self) -> frozenset[str]:
        """The cards with slices that the library alone holds: their programs could not run beside MPS."""
        return frozenset(card.uuid for card in self._slice_cards() if not card.multiprocessors)

    def watch_mps(self, card_uuid: str | None = None) -> tuple[Restart, ...]:
        """Looks after the daemons of all cards under MPS, or of one; what died and was started again."""
        if self.mps is None or not (held := self.mps.held()):
            return ()
        told: list[Restart] = []
        for card in (held | set(self.ceilings())) if card_uuid is None else (card_uuid,):
            with self._nothing_changes([card]):
                told += self.mps.watch(card, self.ceilings().get(card), self.units())
        return tuple(told)

    @contextmanager
    def _nothing_changes(self, cards: Iterable[str]) -> Iterator[None]:
        """Nobody else puts these cards under MPS meanwhile, or has them out of it."""
        with ExitStack() as locks:
            for card in sorted(set(cards)):
                locks.enter_context(self._changing[card])
            yield

    def end_mps(self) -> None:
        """At the yard's end: cards whose slices have all ended are put back. The daemons of others run on, as their
        programs do, for the next yard to find."""
        self.watch_mps()

    def _slice_cards(self) -> list[SliceCard]:
        found: list[SliceCard] = []
        for unit in self.units():
            with suppress(OSError):  # released meanwhile
                found += cards_of(self._root / unit / "slice")
        return found

    def _cut(self, unit: str, slices: Sequence[Slice], cuda: Path, nvml: Path | None, inside: Path | None) -> Path:
        folder = self._root / unit
        seen = inside or folder
        with self._nothing_changes(cut.card_uuid for cut in slices):
            self._hold_by_mps(unit, slices)
            clocks = [self._clock(unit, cut) for cut in slices]
            cards: list[SliceCard] = []
            for cut, clock in zip(slices, clocks, strict=True):
                placed = clock if inside is None or clock is None else inside / "clocks" / cut.card_uuid
                cards.append(self._card(unit, cut, placed))
            limits = SliceLimits(unit, cards, seen / "ledger", cuda, nvml)
            limits.check()
            folder.mkdir(exist_ok=True, mode=0o755)
            for clock in clocks:
                if clock is not None:
                    create_clock(clock)
            create_ledger(folder / "ledger")
            write_slice_file(folder / "slice", limits)
        return folder

    def _card(self, unit: str, cut: Slice, clock: Path | None) -> SliceCard:
        # A slice that is smaller than a context holds none: its programs are told that there is no memory.
        memory = cut.shape.memory_bytes
        context, turn = min(self.driver.context_bytes, memory - 1), self.driver.turn_ns
        if not self._is_under_mps(cut):
            return SliceCard(cut.card_uuid, memory, cut.shape.compute_ppm, context, self._mode, clock, turn)
        # Its multiprocessors are its own, and its programs share the time of those. They take no turns with others.
        allowed = allowed_multiprocessors(self.multiprocessors[cut.card_uuid], cut.shape.compute_ppm)
        own = self._client(unit, cut)[1] or allowed
        whole, cap, share = SHARE_WHOLE_PPM, ComputeMode.CAP, cut.shape.compute_ppm
        return SliceCard(cut.card_uuid, memory, whole, context, cap, clock, 0, own, share)

    def _client(self, unit: str, cut: Slice, pipes: Path | None = None) -> tuple[dict[str, str], int | None]:
        """The variables of a client of the card's MPS server, and how many multiprocessors it has, where they are its
        own. Raises YardError `mps_unavailable`."""
        try:
            return self.mps.client(unit, cut.card_uuid, _ceiling(cut), pipes) if self.mps is not None else ({}, None)
        except (OSError, subprocess.SubprocessError) as error:
            raise YardError("mps_unavailable", card=cut.card_uuid, reason=f"{unit}: {error}") from error

    def _is_under_mps(self, cut: Slice) -> bool:
        by_kernel = cut.guarantee is Guarantee.KERNEL and cut.card_uuid in self.kernel_under_mps
        return by_kernel or cut.guarantee is Guarantee.MPS

    def _limit_by_kernel(self, unit: str, slices: Sequence[Slice]) -> None:
        """Raises YardError `kernel_unavailable`."""
        cards = _limited(slices)
        if not cards:
            return
        if self.kernel is None:
            raise YardError("kernel_unavailable", card=min(cards), reason=_NOT_HERE)
        group = self.kernel.limits.group_of_unit(unit)
        try:
            self.kernel.hold(unit, group, cards)
        except OSError as error:
            self.kernel.give_up(unit, group)
            raise YardError("kernel_unavailable", card=min(cards), reason=f"{unit}: {error}") from error

    def _hold_by_mps(self, unit: str, slices: Sequence[Slice]) -> None:
        """Raises YardError `mps_one_card` and `mps_unavailable`."""
        held = [cut for cut in slices if self._is_under_mps(cut)]
        if not held:
            self._put_back(slices)
            return
        if len(slices) > 1:
            raise YardError("mps_one_card", count=len(slices), model=held[0].card_uuid)
        cut = held[0]
        if self.mps is None or cut.card_uuid not in self.multiprocessors:
            raise YardError("mps_unavailable", card=cut.card_uuid, reason="MPS is not here, or was not seen to hold")
        ceiling = _ceiling(cut)
        others = self.ceilings().get(cut.card_uuid, ceiling)
        try:
            self.mps.hold(cut.card_uuid, ceiling.over(others))
        except OSError as error:
            raise YardError("mps_unavailable", card=cut.card_uuid, reason=f"{unit}: {error}") from error

    def _put_back(self, slices: Sequence[Slice]) -> None:
        """Cards that were under MPS until now are nobody else's: others could not open them."""
        if self.mps is None:
            return
        for card in self.mps.held().intersection(cut.card_uuid for cut in slices) - set(self.ceilings()):
            try:
                self.mps.let_go(card)
            except OSError as error:
                raise YardError("mps_unavailable", card=card, reason=str(error)) from error

    def _clock(self, unit: str, cut: Slice) -> Path | None:
        """The clock that a slice's launches are measured by: the card's, or under MPS one of its own; None where they
        are not."""
        if self._is_under_mps(cut):
            return self._root / unit / "clock"
        return self._root / "clocks" / cut.card_uuid if cut.shape.compute_ppm < SHARE_WHOLE_PPM else None


def _limited(slices: Sequence[Slice]) -> dict[str, int]:
    return {cut.card_uuid: cut.shape.memory_bytes for cut in slices if cut.guarantee is Guarantee.KERNEL}


def _ceiling(cut: Slice) -> Ceiling:
    return Ceiling(cut.shape.compute_ppm, cut.shape.memory_bytes)
