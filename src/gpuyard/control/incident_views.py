"""Whom incidents hit and what they get back, for whoever may see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.billing.lines import What
from gpuyard.control.incidents import hit_by
from gpuyard.control.money import rated_lines
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.incidents import Incident
from gpuyard.store import incidents

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
    given: dict[str, int] = defaultdict(int)
    if any(incident.gives_back for incident in told):
        for line in rated_lines(c, yard.prices, tenant_id):
            if line.what is What.FAULT_CREDIT:
                given[line.origin] -= line.amount_nano
    found: list[Hit] = []
    for incident in told:
        leases = {each.lease_id for each in hit_by(c, incident) if tenant_id in (None, each.tenant_id)}
        if leases or tenant_id is None:
            found.append(Hit(incident, tuple(sorted(leases)), given[incident.id]))
    return found
