"""Opens, closes and dismisses incidents, and lets what they hit be rated anew.

What is given back follows from the incidents and the intervals alone (`billing.faults`). Here it is only written down,
in one transaction, which leases have something new to post.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from gpuyard.control.money import provisional
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.model.leases import Interval
from gpuyard.model.names import new_id
from gpuyard.model.states import LeaseState
from gpuyard.model.times import to_text
from gpuyard.store import charges, events, fleet, incidents, leases, meters


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an operator saw: on a card, a node, or of one lease."""

    what: str
    card: str | None = None
    node: str | None = None
    lease: str | None = None
    last_good_us: int | None = None  # None: well until now


def report(yard: Yard, seen: Sighting, actor: str) -> Incident:
    """Opens an incident that an operator saw. It goes on until it is closed.

    Raises YardError `invalid_request`, `incident_target_unknown`, `incident_open`, `incident_time`.
    """
    now_us = yard.clock.now_us()
    if sum(target is not None for target in (seen.card, seen.node, seen.lease)) != 1:
        raise YardError("invalid_request", reason="one_target")
    last_good_us = now_us if seen.last_good_us is None else seen.last_good_us
    if last_good_us > now_us:
        raise YardError("incident_time", moment=to_text(last_good_us), now=to_text(now_us))
    with yard.store.write() as c:
        node, card = _hardware(c, seen)
        incident = Incident(
            id=new_id("in", now_us),
            cause=Cause.HARDWARE,
            node=node,
            card_uuid=card,
            lease_id=seen.lease,
            what=seen.what,
            opened_us=now_us,
            opened_by=actor,
            last_good_us=last_good_us,
        )
        if not open_one(c, incident):
            raise YardError("incident_open", what=card or seen.lease or node or "")
    yard.wake.set()
    return incident


def _hardware(c: Connection, seen: Sighting) -> tuple[str | None, str | None]:
    """Node and card of what was seen. Raises YardError `incident_target_unknown`."""
    if seen.card is not None:
        for card in fleet.cards(c):
            if card.uuid == seen.card:
                return card.node, card.uuid
        raise YardError("incident_target_unknown", kind="card", name=seen.card[:100])
    if seen.node is not None:
        if seen.node not in {node.name for node in fleet.nodes(c)}:
            raise YardError("incident_target_unknown", kind="node", name=seen.node[:100])
        return seen.node, None
    lease = leases.get(c, seen.lease or "")
    if lease is None:
        raise YardError("incident_target_unknown", kind="lease", name=(seen.lease or "")[:100])
    return lease.node, None


def open_one(c: Connection, incident: Incident) -> bool:
    """Writes a new incident down with all that follows from it; False where one about the same is open already."""
    if not incidents.insert(c, incident):
        return False
    hit = _rate_anew(c, incident)
    events.append(c, [_told("incident.opened", incident, incident.opened_us, incident.opened_by, hit)])
    return True


def close(yard: Yard, incident_id: str, actor: str, at_us: int | None = None) -> Incident:
    """The hardware is well again, now or since a moment that has passed: from then on it is charged.

    Raises YardError `incident_not_found`, `incident_closed`, `incident_time`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        incident = _known(c, incident_id)
        if incident.closed_us is not None:
            raise YardError("incident_closed", incident=incident.id)
        end_us = now_us if at_us is None else at_us
        if end_us > now_us or (incident.last_good_us is not None and end_us < incident.last_good_us):
            raise YardError("incident_time", moment=to_text(end_us), now=to_text(now_us))
        after = close_one(c, incident, end_us, actor, now_us)
    yard.wake.set()
    return after


def close_one(c: Connection, incident: Incident, end_us: int, actor: str, now_us: int) -> Incident:
    """Writes down that an open incident is over, as repaired."""
    if not incidents.close(c, incident.id, end_us, actor, Outcome.REPAIRED):
        return incident
    hit = _rate_anew(c, incident)
    after = replace(incident, closed_us=end_us, closed_by=actor, outcome=Outcome.REPAIRED)
    events.append(c, [_told("incident.closed", after, now_us, actor, hit)])
    return after


def dismiss(yard: Yard, incident_id: str, actor: str) -> Incident:
    """It was none: what was given back for it is charged after all.

    Raises YardError `incident_not_found`, `incident_closed`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        incident = _known(c, incident_id)
        if not incidents.dismiss(c, incident.id, now_us, actor):
            raise YardError("incident_closed", incident=incident.id)
        hit = _rate_anew(c, incident)
        after = replace(incident, closed_us=now_us, closed_by=actor, outcome=Outcome.DISMISSED)
        events.append(c, [_told("incident.dismissed", after, now_us, actor, hit)])
    yard.wake.set()
    return after


def _known(c: Connection, incident_id: str) -> Incident:
    found = incidents.find(c, incident_id)
    if found is None:
        raise YardError("incident_not_found", incident=incident_id[:64])
    return found


def hit_by(c: Connection, incident: Incident) -> list[Interval]:
    """What an incident hit: intervals in which leases ran on it. What runs now does so beyond what is proven of it."""
    if incident.last_good_us is None:
        return []
    if incident.lease_id is not None:
        told = meters.of_leases(c, [incident.lease_id])
    else:
        told = meters.on_node(c, incident.node or "", incident.last_good_us, incident.closed_us)
    running = map(provisional, meters.open_meters(c).values())
    told += [replace(each, end_us=max(each.end_us, incident.last_good_us + 1)) for each in running]
    return [each for each in told if each.state is LeaseState.ACTIVE and incident.hits(each)]


def _rate_anew(c: Connection, incident: Incident) -> Collection[str]:
    """Marks the leases that it hit: the next pass posts what is given back, or is not any more."""
    hit = {each.lease_id for each in hit_by(c, incident)}
    for lease_id in sorted(hit):
        charges.mark_due(c, lease_id)
    return hit


def _told(kind: str, incident: Incident, at_us: int, actor: str, hit: Collection[str]) -> Event:
    data = {
        "cause": incident.cause.value,
        "node": incident.node,
        "card_uuid": incident.card_uuid,
        "lease_id": incident.lease_id,
        "what": incident.what,
        "last_good": None if incident.last_good_us is None else to_text(incident.last_good_us),
        "leases": len(hit),
    }
    return Event(kind, incident.id, at_us, actor=actor, data=data)
