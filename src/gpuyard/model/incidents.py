"""Incident: a fault of the yard's hardware, since when it is known, and until when nothing that it hit is charged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpuyard.model.leases import Interval


class Cause(StrEnum):
    """What an incident is about."""

    NODE_LOST = "node_lost"  # a probe does not find the node any more
    CARD_LOST = "card_lost"  # a probe does not find the card any more
    RECONCILIATION = "reconciliation"  # scheduler, node and bill do not say the same of a lease
    HARDWARE = "hardware"  # what an operator saw


class Outcome(StrEnum):
    """How an incident ended."""

    REPAIRED = "repaired"  # what it hit before that stays given back
    DISMISSED = "dismissed"  # it was none: nothing is given back for it


@dataclass(frozen=True, slots=True)
class Incident:
    """One fault of a node, of a card or of what a single lease runs on. `last_good_us`: until when everything is proven
    to have been well; None where nothing is given back. `closed_us` None: it goes on."""

    id: str
    cause: Cause
    node: str | None
    card_uuid: str | None
    lease_id: str | None
    what: str
    opened_us: int
    opened_by: str
    last_good_us: int | None
    closed_us: int | None = None
    closed_by: str | None = None
    outcome: Outcome | None = None

    @property
    def gives_back(self) -> bool:
        """Whether what it hit is not charged."""
        return self.last_good_us is not None and self.outcome is not Outcome.DISMISSED

    def hits(self, interval: Interval) -> bool:
        """Whether a lease was on the faulty hardware in this interval, while it was not proven to be well."""
        if self.last_good_us is None or interval.end_us <= self.last_good_us:
            return False
        if self.closed_us is not None and interval.start_us >= self.closed_us:
            return False
        if self.lease_id is not None:
            return interval.lease_id == self.lease_id
        if self.card_uuid is not None:
            return self.card_uuid in interval.card_uuids
        return interval.node is not None and interval.node == self.node
