"""What changed, said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only event table. `sequence` is assigned by the store, in commit order."""

    kind: str  # workload.running, lease.granted, interval.closed, card.missing, ...
    subject: str  # the id of what it is about
    at_us: int
    tenant_id: str | None = None  # None: only operators see it
    actor: str = "yard"
    data: Mapping[str, object] = field(default_factory=dict[str, object])
    sequence: int = 0
