"""The MIG profiles of the card models that have MIG: what simulated and emulated cards answer with. A real card is
asked itself, by NVML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from gpuyard.catalog import rows
from gpuyard.catalog.cards import CardModel
from gpuyard.model.mig import MigProfile
from gpuyard.model.units import MIB

_ZERO = {"minimum": 0}
SLICES = 7  # compute slices of every card that has MIG


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """A row of `data/mig.toml`, which says what each figure counts."""

    index: int = field(metadata=_ZERO)
    id: int = field(metadata=_ZERO)
    slices: int
    most: int
    size: int
    places: int
    step: int
    memory_eighths: int
    memory_40_mib: int
    memory_80_mib: int
    sm_ampere: int
    sm_hopper: int
    copy_engines: int
    decoders: int = field(default=0, metadata=_ZERO)
    jpegs: int = field(default=0, metadata=_ZERO)
    ofas: int = field(default=0, metadata=_ZERO)
    suffix: str = ""

    def name(self, model: CardModel) -> str:
        """As NVIDIA names it: the compute slices, and the memory in GB of the card's full figure."""
        gib = (model.memory_mib // 1024 * self.memory_eighths + 4) // 8
        return f"{self.slices}g.{gib}gb{self.suffix}"

    def memory_mib(self, model: CardModel) -> int:
        """What an instance of it has on a card of that model."""
        known = {40: self.memory_40_mib, 80: self.memory_80_mib}
        return known.get(model.memory_mib // 1024, model.memory_mib * self.memory_eighths // 8)

    def multiprocessors(self, model: CardModel) -> int:
        """Likewise."""
        return min(self.sm_ampere if model.architecture == "Ampere" else self.sm_hopper, model.compute_units)


@cache
def load() -> tuple[ProfileRow, ...]:
    """Every profile, in the order of the file. Raises YardError `catalog_invalid`."""
    return parse(*rows.packaged("mig.toml", "catalog_invalid"))


def parse(values: Mapping[str, object], place: rows.Place) -> tuple[ProfileRow, ...]:
    """The rows of a file of profiles. Raises YardError `place.code`."""
    rows.only(values, ("profile",), place)
    found: dict[int, ProfileRow] = {}
    for row, at in rows.tables(values, "profile", place):
        profile = rows.build(ProfileRow, row, at)
        if profile.id in found:
            raise at.refuse("id", profile.id, "unique")
        found[profile.id] = profile
    return tuple(found.values())


@cache
def profiles_of(model: CardModel) -> tuple[MigProfile, ...]:
    """How a card of that model can be cut; not at all where it has no MIG."""
    if model.mig_instances is None:
        return ()
    return tuple(
        MigProfile(
            id=row.id,
            name=row.name(model),
            compute_slices=row.slices,
            memory_bytes=row.memory_mib(model) * MIB,
            size=row.size,
            starts=tuple(range(0, row.places * row.step, row.step)),
            most=row.most,
            multiprocessors=row.multiprocessors(model),
        )
        for row in load()
    )
