"""Requests for spot that are taken back before or after they were met: all of those named, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import RECLAIMED
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Desired, Workload
from gpuyard.store import events, leases, workloads

MARK: Final = "gpuyard:spot-request"  # the label that says so to whoever looks
CANCELLED: Final = "cancelled"
RAN: Final = "ran"


def reasons(c: Connection, found: Sequence[Workload]) -> dict[str, str | None]:
    """Of each workload why its newest lease is as it is, `ran` where there is no reason; None where it never ran."""
    told: dict[str, str | None] = {}
    for lease in leases.of_workloads(c, [workload.id for workload in found]):
        ever = lease.terms is not None  # they are fixed when its slices are granted
        told[lease.workload_id] = (lease.reason or RAN) if ever else None
    return told


def cancel(yard: Yard, workload_ids: Sequence[str], actor: str) -> None:
    """What waits for its first slices goes; what waits to run again is stopped, and keeps its disk; what runs goes on
    running, and is marked.

    Raises YardError `workload_not_found`; nothing was changed then.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        for workload_id in dict.fromkeys(workload_ids):
            workload = workloads.get(c, workload_id)
            if workload is None:
                raise YardError("workload_not_found", workload=workload_id)
            if workload.spec.labels.get(MARK) == CANCELLED or workload.desired is Desired.REMOVE:
                continue
            workloads.set_labels(c, workload, {**workload.spec.labels, MARK: CANCELLED}, now_us)
            told = {"name": workload.name}
            events.append(c, [Event("spot.cancelled", workload.id, now_us, workload.tenant_id, actor, told)])
            if workload.state is WorkloadState.PENDING and workload.desired is Desired.RUN:
                _end_waiting(c, workload, actor, now_us)
    yard.wake.set()


def _end_waiting(c: Connection, workload: Workload, actor: str, now_us: int) -> None:
    again = reasons(c, [workload]).get(workload.id) == RECLAIMED
    desired, state = (Desired.STOP, WorkloadState.STOPPING) if again else (Desired.REMOVE, WorkloadState.REMOVING)
    workloads.set_desired(c, workload.id, desired, now_us)
    workloads.set_state(c, workload.id, state, None, {}, workload.exit_code, now_us)
    kind = "workload.stopping" if again else "workload.removing"
    events.append(c, [Event(kind, workload.id, now_us, workload.tenant_id, actor, {"name": workload.name})])
