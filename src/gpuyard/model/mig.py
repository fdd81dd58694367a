"""MIG: the ways in which some NVIDIA cards can be cut by the hardware itself."""

from __future__ import annotations

from dataclasses import dataclass


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
