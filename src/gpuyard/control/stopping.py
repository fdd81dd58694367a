"""What the yard itself stops, and why: the reason stays on the workload, its disk is kept."""

from __future__ import annotations

from typing import Final

from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import SECOND_US
from gpuyard.model.workloads import Desired, Workload
from gpuyard.store import events, workloads

# Reasons that stay on a workload: who stopped it. A lease knows only that it was stopped.
BY_THE_YARD: Final = frozenset({"credit_exhausted", "budget_exhausted", "idle", "outside_geography"})
# Who has nothing left gets this long to stop in, whatever the workload asked for: it runs on the yard's money.
UNPAID_GRACE_US: Final = 120 * SECOND_US

_ENDED = frozenset(
    {
        WorkloadState.SUCCEEDED,
        WorkloadState.FAILED,
        WorkloadState.STOPPED,
        WorkloadState.REMOVING,
        WorkloadState.REMOVED,
    }
)


def running_of(yard: Yard) -> dict[str, list[Workload]]:
    """What is wanted to run, by tenant."""
    with yard.store.read() as c:
        running = [w for w in workloads.unsettled(c) if w.desired is Desired.RUN and w.state not in _ENDED]
    found: dict[str, list[Workload]] = {}
    for workload in running:
        found.setdefault(workload.tenant_id, []).append(workload)
    return found


def stop_all(yard: Yard, tenant_id: str, reason: str, now_us: int) -> int:
    """Asks everything that a tenant runs to stop; how many that were."""
    return stop_these(yard, running_of(yard).get(tenant_id, []), reason, now_us)


def stop_these(yard: Yard, mine: list[Workload], reason: str, now_us: int, also: tuple[Event, ...] = ()) -> int:
    """Asks these to stop, and tells the other events in the same transaction; how many they were."""
    if not mine:
        return 0
    with yard.store.write() as c:
        still = [workload for workload in mine if workloads.desired_of(c, workload.id) is Desired.RUN]
        for workload in still:
            workloads.set_desired(c, workload.id, Desired.STOP, now_us)
            workloads.set_state(c, workload.id, WorkloadState.STOPPING, reason, {}, None, now_us)
        told = [
            Event("workload.stopping", w.id, now_us, w.tenant_id, data={"name": w.name, "reason": reason})
            for w in still
        ]
        if still:
            events.append(c, [*also, *told])
    yard.wake.set()
    return len(still)
