"""What a yard gives back to its tenants, reckoned from its events, incidents and intervals alone: runs on spot that it
took back within their first hour, and what ran on hardware that was found faulty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction

from gpuyard.model.events import Event
from gpuyard.model.incidents import Incident
from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState

HOUR_US = 3_600_000_000
CREDITS = ("fault_credit", "reclaim_credit")


SECOND_US = 1_000_000


def given_back_nano(told: Iterable[Event], intervals: Iterable[Interval], faults: Iterable[Incident] = ()) -> Fraction:
    """The exact price of what ran since the last start, or since it was taken back before, and of what ran on faulty
    hardware after the last second in which that was well; what is both is given back once."""
    ran = sorted((i for i in intervals if i.state is LeaseState.ACTIVE), key=lambda i: i.sequence)
    free: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    before_us = dict[str, int]()
    for event in told:
        if event.kind != "lease.requested" or event.data["reason"] != "reclaimed":
            continue
        since_us = before_us.get(event.subject, 0)
        before_us[event.subject] = event.at_us
        spell = [i for i in ran if i.lease_id == event.subject and since_us < i.end_us <= event.at_us]
        spell = [i for i in spell if i.run == spell[-1].run]
        if sum(i.duration_us for i in spell) < HOUR_US:
            for i in spell:
                free[i.lease_id, i.sequence].append((i.start_us, i.end_us))
    for fault in faults:
        for i in ran:
            here = fault.card_uuid in i.card_uuids if fault.card_uuid is not None else fault.node == i.node
            if here and fault.last_good_us is not None and fault.lease_id is None and i.end_us > fault.last_good_us:
                start_us = max(i.start_us, fault.last_good_us // SECOND_US * SECOND_US)
                end_us = i.end_us if fault.closed_us is None else min(i.end_us, fault.closed_us)
                free[i.lease_id, i.sequence].append((start_us, end_us))
    each = ((_together_us(free[i.lease_id, i.sequence]) * i.price_per_hour_nano) for i in ran)
    return sum((Fraction(whole, HOUR_US) for whole in each), Fraction(0))


def _together_us(spans: list[tuple[int, int]]) -> int:
    """How long the spans are, what lies in several of them counted once."""
    total, reached_us = 0, 0
    for start_us, end_us in sorted(spans):
        total += max(0, end_us - max(start_us, reached_us))
        reached_us = max(reached_us, end_us)
    return total
