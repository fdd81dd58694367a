"""Whom incidents hit and what they get back, for whoever may see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from gpuyard.billing.lines import What
from gpuyard.billing.rated import rate_all
from gpuyard.control.incidents import hit_by
from gpuyard.control.money import provisional
from gpuyard.control.rating_conditions import conditions_of
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.incidents import Incident
from gpuyard.store import incidents, meters

A_PAGE = 500


@dataclass(frozen=True, slots=True)
class Hit:
    """An incident, and of one tenant (or all) the leases that were on it and what they get back, in nano-units."""

    incident: Incident
    lease_ids: tuple[str, ...]
    given_back_nano: int


def hits(yard: Yard, tenant_id: str | None, only_open: bool, limit: int) -> list[Hit]:
    """Incidents, newest first. A tenant's are those that hit its leases; the yard's are all."""
    with yard.store.read() as c:
        told = incidents.listing(c, only_open, A_PAGE if tenant_id is not None else limit)
        return _with_hits(c, yard, tenant_id, told)[:limit]


def hit(yard: Yard, tenant_id: str | None, incident_id: str) -> Hit:
    """One of them. Raises YardError `incident_not_found`, also for one that did not hit the tenant."""
    with yard.store.read() as c:
        found = incidents.find(c, incident_id)
        seen = [] if found is None else _with_hits(c, yard, tenant_id, [found])
    if not seen:
        raise YardError("incident_not_found", incident=incident_id[:64])
    return seen[0]


def _with_hits(c: Connection, yard: Yard, tenant_id: str | None, told: Sequence[Incident]) -> list[Hit]:
    of_each = {
        incident.id: {each.lease_id for each in hit_by(c, incident) if tenant_id in (None, each.tenant_id)}
        for incident in told
    }
    given = _given_back(c, yard, {lease for leases in of_each.values() for lease in leases})
    return [
        Hit(incident, tuple(sorted(of_each[incident.id])), given.get(incident.id, 0))
        for incident in told
        if of_each[incident.id] or tenant_id is None
    ]


def _given_back(c: Connection, yard: Yard, lease_ids: Collection[str]) -> dict[str, int]:
    """By incident what these leases get back. Nobody else's leases and no commitment change that: a commitment never
    pays for time that is given back."""
    intervals = meters.of_leases(c, lease_ids)
    running = _running(c, sorted(lease_ids))
    intervals += [provisional(running[lease_id]) for lease_id in sorted(running)]
    found: dict[str, int] = defaultdict(int)
    if intervals:
        conditions = conditions_of(c, yard.prices, None, intervals, frozenset(), until_us=0)
        for line in rate_all(intervals, replace(conditions, commitments=())):
            if line.what is What.FAULT_CREDIT:
                found[line.origin] -= line.amount_nano
    return found


def _running(c: Connection, lease_ids: Sequence[str]) -> dict[str, meters.Meter]:
    found: dict[str, meters.Meter] = {}
    for start in range(0, len(lease_ids), A_PAGE):
        found.update(meters.open_among(c, lease_ids[start : start + A_PAGE]))
    return found
