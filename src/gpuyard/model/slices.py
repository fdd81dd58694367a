"""Slice shapes and the guarantee that backs a slice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gpuyard.model.units import SHARE_WHOLE_PPM

if TYPE_CHECKING:
    from gpuyard.model.mig import MigCut


class Guarantee(StrEnum):
    """Who enforces a slice, strongest first. Never claimed above what is proven on that card."""

    EXCLUSIVE = "exclusive"
    KERNEL = "kernel"
    MPS = "mps"
    COOPERATIVE = "cooperative"
    NONE = "none"


# The named shapes: name -> how many of them make one card.
FRACTIONS: Final[dict[str, int]] = {"full": 1, "half": 2, "quarter": 4, "eighth": 8, "sixteenth": 16}


@dataclass(frozen=True, slots=True)
class SliceShape:
    """A share of one card: bytes of memory and compute in parts per million."""

    memory_bytes: int
    compute_ppm: int

    @classmethod
    def fraction(cls, card_memory_bytes: int, parts: int) -> SliceShape:
        """One of `parts` equal slices of a card; rounded down so that all of them fit."""
        return cls(card_memory_bytes // parts, SHARE_WHOLE_PPM // parts)

    def share_of_card_ppm(self, card_memory_bytes: int) -> int:
        """The dominant share, rounded up: what nobody else can use any more, and so what is paid for."""
        memory_ppm = -(-self.memory_bytes * SHARE_WHOLE_PPM // card_memory_bytes)
        return max(memory_ppm, self.compute_ppm)

    def is_whole(self, card_memory_bytes: int) -> bool:
        """Whether nothing of the card is left for anyone else."""
        return self.memory_bytes >= card_memory_bytes and self.compute_ppm >= SHARE_WHOLE_PPM


@dataclass(frozen=True, slots=True)
class Slice:
    """A shape cut from a certain card for a certain lease."""

    lease_id: str
    card_uuid: str
    shape: SliceShape
    guarantee: Guarantee
    mig: MigCut | None = None  # the MIG instance that backs it, where one does


def share_of(slices: Iterable[Slice]) -> int:
    """The compute of cards that slices hold together, in parts per million of one: of one card never more than all."""
    return sum(cut.shape.compute_ppm for cut in slices)
