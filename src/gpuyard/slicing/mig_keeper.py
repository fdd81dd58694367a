"""Keeps the MIG instances of this machine's units: makes them when a unit starts, and removes them when it has ended.

The driver gives instances no names, so what is ours is written down before it is made: `<root>/<unit>.json` holds the
card and the place. What no such file names was made by somebody else and is never touched. Instances do not outlive the
machine's boot, and neither does what is written of them. Every method may be called again after it was cut short.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.mig import MigPlace
from gpuyard.model.slices import Slice
from gpuyard.slicing import mig_calls
from gpuyard.slicing.drivers import Driver

_SUFFIX: Final = ".json"
AGAIN_NS: Final = 5_000_000_000


@dataclass(frozen=True, slots=True)
class _Held:
    """What a unit has, or is about to have, or had until a moment ago."""

    card_uuid: str
    place: MigPlace
    boot_id: str


class MigKeeper:
    """The instances whose files lie below one folder that only the yard writes. `boot_id` names this boot."""

    def __init__(self, root: Path, driver: Driver, boot_id: str) -> None:
        self.driver = driver
        self._root = root
        self._boot_id = boot_id
        self._changing = RLock()
        self._again_ns: dict[str, int] = {}  # when units whose instances were in use are to be tried again
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def hold(self, unit: str, cut: Slice) -> dict[str, str]:
        """Has the unit's instance made; the variables with which its programs compute there and nowhere else.

        Raises YardError `mig_place_taken` where another instance is in the way, and `mig_unavailable` where it cannot
        be made now.
        """
        if cut.mig is None:
            raise ValueError(f"{unit}: no MIG instance backs its slice")
        with self._changing:
            try:
                if unit not in self._units():
                    self._must_be_free(unit, cut.card_uuid, cut.mig.place)
                    self._write(unit, _Held(cut.card_uuid, cut.mig.place, self._boot_id))
                name = mig_calls.make(self.driver, cut.card_uuid, cut.mig.place)
            except OSError as error:
                raise YardError("mig_unavailable", card=cut.card_uuid, place=str(cut.mig), reason=str(error)) from error
        emulated = bool(self.driver.files)  # a real driver is found by itself
        given = self.driver.bare() if emulated else self.driver.variables()
        return {**given, "CUDA_VISIBLE_DEVICES": name, "NVIDIA_VISIBLE_DEVICES": name}

    def release(self, unit: str) -> bool:
        """Removes a unit's instance; False where that does not work yet, and then it is to be asked again. An unknown
        unit has none."""
        with self._changing:
            held = self._units().get(unit)
            if held is not None:
                with suppress(OSError):
                    if held.boot_id == self._boot_id:
                        mig_calls.remove(self.driver, held.card_uuid, held.place)
                    self._file(unit).unlink(missing_ok=True)
        return not self._file(unit).exists()

    def end(self, units: Iterable[str], now_ns: int) -> None:
        """Removes the instances of units that have ended. What is in use still is tried again some seconds later:
        whoever looks at units calls this, however often."""
        for unit in units:
            if now_ns >= self._again_ns.get(unit, 0):
                self._again_ns[unit] = now_ns + AGAIN_NS
                if self.release(unit):
                    del self._again_ns[unit]

    def units(self) -> frozenset[str]:
        """The units that have instances."""
        return frozenset(self._units())

    def others(self, card_uuids: Iterable[str]) -> dict[str, tuple[MigPlace, ...]]:
        """The instances on these cards that are not ours, where there are any. Raises OSError where NVML is silent."""
        ours = {(held.card_uuid, held.place) for held in self._units().values() if held.boot_id == self._boot_id}
        seen = mig_calls.taken(self.driver, sorted(card_uuids))
        found = {card: tuple(place for place in places if (card, place) not in ours) for card, places in seen.items()}
        return {card: places for card, places in found.items() if places}

    def _must_be_free(self, unit: str, card_uuid: str, place: MigPlace) -> None:
        for other in mig_calls.taken(self.driver, [card_uuid]).get(card_uuid, ()):
            if other.meets(place):
                where = f"{other.start}-{other.start + other.size - 1}"
                raise YardError(
                    "mig_place_taken",
                    card=card_uuid,
                    place=where,
                    reason=f"another MIG instance is at {where}, where that of {unit} is to be",
                )

    def _units(self) -> Mapping[str, _Held]:
        found: dict[str, _Held] = {}
        for file in self._root.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # released meanwhile
                card, profile, start, size, boot = json.loads(file.read_text())
                found[file.name.removesuffix(_SUFFIX)] = _Held(card, MigPlace(profile, start, size), boot)
        return found

    def _write(self, unit: str, held: _Held) -> None:
        place = held.place
        partial = self._root / f".{unit}.partial"
        text = json.dumps([held.card_uuid, place.profile_id, place.start, place.size, held.boot_id])
        partial.write_text(text)
        partial.replace(self._file(unit))

    def _file(self, unit: str) -> Path:
        return self._root / f"{unit}{_SUFFIX}"
