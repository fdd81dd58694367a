"""What a unit has done since it began, as far as a runtime can tell. What it cannot tell is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Activity:
    """Sums that only grow while the unit runs. None: this runtime cannot tell."""

    cpu_us: int | None = None
    network_bytes: int | None = None  # received and sent; no more than this where units share a network


@runtime_checkable
class Watched(Protocol):
    """A runtime that can tell what its units do."""

    def activity(self, name: str) -> Activity:
        """What a unit has done so far; all absent for one that does not run."""
        ...


@runtime_checkable
class Sending(Protocol):
    """A runtime that can tell what its units send."""

    def sent_bytes(self, name: str) -> int | None:
        """What a unit has sent since it began; of one that has ended what was known last. None: it cannot be told."""
        ...
