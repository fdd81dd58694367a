"""MIG: the ways in which some NVIDIA cards can be cut by the hardware itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from gpuyard.model.slices import SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM


@dataclass(frozen=True, slots=True)
class MigProfile:
    """A kind of GPU instance: it takes `size` memory slots from one of `starts` on, and `compute_slices`."""

    id: int
    name: str  # as NVIDIA names it, e.g. 3g.40gb
    compute_slices: int
    memory_bytes: int
    size: int
    starts: tuple[int, ...]
    most: int  # instances of this profile on one card
    multiprocessors: int = 0  # that a program in it has; 0: not known


@dataclass(frozen=True, slots=True)
class MigPlace:
    """Where an instance of a profile lies, or is to lie."""

    profile_id: int
    start: int
    size: int

    def meets(self, other: MigPlace) -> bool:
        """Whether both want the same memory slot."""
        return self.start < other.start + other.size and other.start < self.start + self.size


@dataclass(frozen=True, slots=True)
class MigCut:
    """What backs a slice of a card in MIG mode: an instance of this profile, at this place."""

    profile: str  # as NVIDIA names it, e.g. 3g.40gb
    place: MigPlace

    def __str__(self) -> str:
        return f"{self.profile}@{self.place.start}"

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps([self.profile, self.place.profile_id, self.place.start, self.place.size])

    @classmethod
    def from_json(cls, text: str) -> MigCut:
        """What `to_json` made. Raises ValueError."""
        profile, number, start, size = json.loads(text)
        return cls(profile, MigPlace(number, start, size))


@dataclass(frozen=True, slots=True)
class MigCard:
    """A card that has MIG: what it can be cut into and what it is cut into now. `enabled`: MIG mode is on."""

    card_uuid: str
    enabled: bool
    profiles: tuple[MigProfile, ...]
    taken: tuple[MigPlace, ...] = ()

    @property
    def compute_slices(self) -> int:
        """All that the card has."""
        return max((profile.compute_slices for profile in self.profiles), default=0)

    def profile(self, profile_id: int) -> MigProfile | None:
        """The profile of that number."""
        return next((profile for profile in self.profiles if profile.id == profile_id), None)

    def shape(self, profile: MigProfile) -> SliceShape:
        """What an instance of the profile is of this card: its memory, and its part of all compute slices."""
        return SliceShape(profile.memory_bytes, profile.compute_slices * SHARE_WHOLE_PPM // self.compute_slices)

    def taking(self, place: MigPlace) -> MigCard:
        """The card with one more instance there."""
        return replace(self, taken=(*self.taken, place))

    def without(self, place: MigPlace) -> MigCard:
        """The card without the instance there."""
        return replace(self, taken=tuple(other for other in self.taken if other != place))

    def to_json(self) -> str:
        """The profiles, as they are stored; what is taken changes by the minute and is not."""
        return json.dumps([asdict(profile) for profile in self.profiles])

    @classmethod
    def from_json(cls, card_uuid: str, text: str) -> MigCard:
        """A card in MIG mode, of what `to_json` made. Raises ValueError, KeyError or TypeError."""
        rows: list[dict[str, Any]] = json.loads(text)
        for row in rows:
            row["starts"] = tuple(row["starts"])
        return cls(card_uuid, True, tuple(MigProfile(**row) for row in rows))
