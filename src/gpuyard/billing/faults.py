"""Incidents -> faults: which leases were on faulty hardware, and from when to when nothing is charged for it.

Derived anew from the incidents and the intervals each time. An incident that is told late, closed, dismissed or read
twice thus never gives anything back twice, and there is nothing beside the two that a crash could leave half done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from gpuyard.billing.conditions import Fault
from gpuyard.model.incidents import Incident
from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState


def faults_of(incidents: Iterable[Incident], intervals: Iterable[Interval]) -> tuple[Fault, ...]:
    """What is given back. An incident that goes on hits everything that is known to have run so far."""
    by_target: dict[tuple[str, str], list[Incident]] = defaultdict(list)
    for incident in incidents:
        if incident.gives_back:
            by_target[_target(incident)].append(incident)
    if not by_target:
        return ()
    found: list[Fault] = []
    for interval in intervals:
        if interval.state is LeaseState.ACTIVE and interval.duration_us:
            found += [_fault(incident, interval) for incident in _near(interval, by_target) if incident.hits(interval)]
    return tuple(found)


def _target(incident: Incident) -> tuple[str, str]:
    if incident.lease_id is not None:
        return "lease", incident.lease_id
    return ("card", incident.card_uuid) if incident.card_uuid is not None else ("node", incident.node or "")


def _near(interval: Interval, by_target: dict[tuple[str, str], list[Incident]]) -> list[Incident]:
    """The incidents of what the interval ran on, each once, whenever they were."""
    targets = [("lease", interval.lease_id), ("node", interval.node or ""), *(("card", u) for u in interval.card_uuids)]
    return [incident for target in targets for incident in by_target.get(target, ())]


def _fault(incident: Incident, interval: Interval) -> Fault:
    until_us = interval.end_us if incident.closed_us is None else min(interval.end_us, incident.closed_us)
    last_good_us = incident.last_good_us or 0  # it is there: without it nothing is hit
    return Fault(incident.id, interval.lease_id, last_good_us, until_us, interval.start_us)
