"""What a yard gives back to its tenants, reckoned from its events and intervals alone: runs on spot that it took back
within their first hour."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from gpuyard.model.events import Event
from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState

HOUR_US = 3_600_000_000
CREDITS = ("fault_credit", "reclaim_credit")


def given_back_nano(told: Iterable[Event], intervals: Iterable[Interval]) -> Fraction:
    """The exact price of what ran since the last start, or since it was taken back before."""
    ran = sorted((i for i in intervals if i.state is LeaseState.ACTIVE), key=lambda i: i.sequence)
    total, before_us = Fraction(0), dict[str, int]()
    for event in told:
        if event.kind != "lease.requested" or event.data["reason"] != "reclaimed":
            continue
        since_us = before_us.get(event.subject, 0)
        before_us[event.subject] = event.at_us
        spell = [i for i in ran if i.lease_id == event.subject and since_us < i.end_us <= event.at_us]
        spell = [i for i in spell if i.run == spell[-1].run]
        if sum(i.duration_us for i in spell) < HOUR_US:
            total += sum(Fraction(i.duration_us * i.price_per_hour_nano, HOUR_US) for i in spell)
    return total
