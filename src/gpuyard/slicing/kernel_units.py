"""The units whose device memory the driver itself holds, and what becomes of their limits while they run.

A note beside each unit's slice says which group it is and what it may have, so that the next yard knows. Everything
is looked at again and again: a limit that somebody changed is set once more, and a program that left its group is put
back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from gpuyard.slicing.kernel_limits import GroupLimit, KernelLimits, cgroup_of, is_within

NOTE: Final = "kernel"  # below a unit's folder, where the driver holds its memory


@dataclass(frozen=True, slots=True)
class Held:
    """A unit's group, and how many bytes of each card (by UUID) its programs may have together."""

    group: str
    cards: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LimitChange:
    """What was found not to be as it should. `pid`: a program that had left its group; None: a limit that was not set.
    `reason` None: it was put right; else why it could not be, and the unit's programs may have more than their slice.
    """

    unit: str
    card_uuid: str | None
    pid: int | None
    reason: str | None


class KernelUnits:
    """Below `root`, `<unit>/kernel` for each unit whose memory the driver holds."""

    def __init__(self, root: Path, limits: KernelLimits) -> None:
        self._root = root
        self.limits = limits
        self._changes: list[LimitChange] = []
        self._lost: set[tuple[str, str | None, int | None]] = set()
        self._lock = Lock()

    def hold(self, unit: str, group: str, cards: Mapping[str, int]) -> None:
        """Sets the limits and notes them. Raises OSError where they do not hold."""
        self.expect(unit, cards, group)
        self.limits.limit(group, cards)

    def expect(self, unit: str, cards: Mapping[str, int], group: str = "") -> None:
        """Notes what the unit may have. Without a `group`, whoever makes one for it says so later: see `hold_in`."""
        folder = self._root / unit
        folder.mkdir(exist_ok=True, mode=0o755)
        partial = folder / f".{NOTE}.new"
        partial.write_text(json.dumps({"group": group, "cards": dict(cards)}))
        partial.replace(folder / NOTE)

    def hold_in(self, unit: str, pid: int) -> None:
        """Sets the noted limits on the group that this process is in: a container, before its program begins. Raises
        OSError where they do not hold."""
        group, held = cgroup_of(pid), self._held().get(unit)
        if held is None or group in (None, "", "/"):
            raise OSError(f"the container's process {pid} is in no cgroup (v2) of its own")
        self.limits.pass_on_to(group)
        self.hold(unit, group, held.cards)

    def held(self) -> dict[str, Held]:
        """The units that have limits."""
        return {unit: held for unit, held in self._held().items() if held.group}

    def _held(self) -> dict[str, Held]:
        found: dict[str, Held] = {}
        for note in self._root.glob(f"*/{NOTE}"):
            with suppress(OSError, ValueError, KeyError):  # released meanwhile
                content = json.loads(note.read_text())
                found[note.parent.name] = Held(content["group"], content["cards"])
        return found

    def give_up(self, unit: str, group: str) -> None:
        """Undoes `hold` for a unit that does not start."""
        self.limits.remove(group)
        self.end(unit)

    def end(self, unit: str) -> None:
        """After the unit: its limits go with its group. An unknown one is no error."""
        held = self.held().get(unit)
        if held is not None:
            self.limits.forget(held.group)
            (self._root / unit / NOTE).unlink(missing_ok=True)
        with self._lock:
            self._lost = {each for each in self._lost if each[0] != unit}

    def asked(self) -> list[tuple[str, str]]:
        """What has to be looked at: cards and group folders, as NVML is asked for them."""
        return [(uuid, self.limits.folder(held.group)) for held in self.held().values() for uuid in held.cards]

    def well_held(self, told: Mapping[tuple[str, str], GroupLimit | None]) -> frozenset[str]:
        """The cards with units whose limits are all as they were noted. `told` as for `look`."""
        right: dict[str, bool] = {}
        for held in self.held().values():
            for uuid, most in held.cards.items():
                seen = told.get((uuid, self.limits.folder(held.group)))
                right[uuid] = right.get(uuid, True) and seen is not None and seen.hard_bytes == most
        return frozenset(uuid for uuid, well in right.items() if well)

    def lost_cards(self) -> frozenset[str]:
        """The cards on which a limit is not as it was noted, and could not be set again."""
        with self._lock:
            return frozenset(uuid for _, uuid, _ in self._lost if uuid is not None)

    def look(self, told: Mapping[tuple[str, str], GroupLimit | None], programs: Iterable[tuple[str, int]]) -> None:
        """Puts right what is not as it was noted. `told`: limits as NVML says they are now, for what was `asked`.
        `programs`: (unit, pid) of those that have a card open."""
        running: dict[str, set[int]] = {}
        for unit, pid in programs:
            running.setdefault(unit, set()).add(pid)
        for unit, held in self.held().items():
            wrong: list[str] = []
            for uuid, most in held.cards.items():
                key = (uuid, self.limits.folder(held.group))
                seen = told.get(key)
                if key in told and (seen is None or seen.hard_bytes != most):
                    wrong.append(uuid)
            # A unit that has ended took its group along: nothing of it is made again.
            if wrong and unit in running:
                self._set_again(unit, held, wrong)
            for pid in sorted(running.get(unit, ())):
                if not is_within(cgroup_of(pid), held.group):
                    self._bring_back(unit, held, pid)

    def changes(self) -> tuple[LimitChange, ...]:
        """What was found since this was asked last."""
        with self._lock:
            found, self._changes = tuple(self._changes), []
        return found

    def _set_again(self, unit: str, held: Held, cards: Iterable[str]) -> None:
        try:
            self.limits.limit(held.group, held.cards)
        except OSError as error:
            for uuid in cards:
                self._tell(LimitChange(unit, uuid, None, str(error)))
            return
        for uuid in cards:
            self._tell(LimitChange(unit, uuid, None, None))

    def _bring_back(self, unit: str, held: Held, pid: int) -> None:
        try:
            self.limits.bring_back(pid, held.group)
        except OSError as error:
            if cgroup_of(pid) is not None:  # it has not just ended
                self._tell(LimitChange(unit, None, pid, str(error)))
            return
        self._tell(LimitChange(unit, None, pid, None))

    def _tell(self, change: LimitChange) -> None:
        """Once for what stays wrong, each time for what was put right."""
        key = (change.unit, change.card_uuid, change.pid)
        with self._lock:
            if change.reason is None:
                self._lost.discard(key)
            elif key in self._lost:
                return
            else:
                self._lost.add(key)
            self._changes.append(change)
