"""What came, as the leases remember it: a yard that starts again learns from it what to expect."""

from __future__ import annotations

from sqlalchemy import Connection, select

from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import WorkloadSpec
from gpuyard.store import specs
from gpuyard.store.tables import LEASES, WORKLOADS

_NEWEST = (
    select(LEASES.c.id, LEASES.c.state, WORKLOADS.c.spec)
    .join(WORKLOADS, WORKLOADS.c.id == LEASES.c.workload_id)
    .order_by(LEASES.c.id.desc())
)


def newest(c: Connection, most: int) -> list[tuple[str, LeaseState, WorkloadSpec]]:
    """The newest leases, ended ones too, newest first: id, state, and what was asked for."""
    found = c.execute(_NEWEST.limit(most))
    return [(lease_id, LeaseState(state), specs.from_json(spec)) for lease_id, state, spec in found]
