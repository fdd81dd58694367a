"""What a tenant may ask of a workload: stop, start, remove. Each says what is wanted; the loops make it so."""

from __future__ import annotations

from collections.abc import Callable

from gpuyard.control import quotas
from gpuyard.control.affording import hold_for_launch, must_have_money, prices_of
from gpuyard.control.launching import new_lease
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.workloads import Desired, Workload
from gpuyard.store import events, leases, tenants, workloads

Command = Callable[[Yard, str, str], Workload]

_FINISHED = frozenset({WorkloadState.SUCCEEDED, WorkloadState.FAILED})


def stop(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks it to stop; its disk is kept. Stopping what is stopped changes nothing.

    Raises YardError `wrong_state` for what has finished or is being removed.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        workload = _get(workloads.get(c, workload_id), workload_id)
        if workload.state in _FINISHED or workload.desired is Desired.REMOVE:
            raise YardError("wrong_state", noun="workload", state=workload.state, wanted="stopped")
        if workload.desired is Desired.STOP:
            return workload
        workloads.set_desired(c, workload.id, Desired.STOP, now_us)
        workloads.set_state(c, workload.id, WorkloadState.STOPPING, None, {}, None, now_us)
        events.append(c, [_event("workload.stopping", workload, actor, now_us)])
        changed = workloads.get(c, workload.id)
    yard.wake.set()
    return _get(changed, workload_id)


def start(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks it to run again, on the disk that it left. Starting what runs changes nothing.

    Raises YardError `wrong_state` for a job that succeeded and for what is being removed, `insufficient_credit` and
    `budget_exhausted`.
    """
    with yard.store.read() as c:
        workload = _get(workloads.get(c, workload_id), workload_id)
        tenant = tenants.find(c, workload.tenant_id)
        now_us = yard.clock.now_us()
        if tenant is not None and _would_start(workload):
            must_have_money(c, yard, tenant, now_us)
    with yard.store.write() as c:
        workload = _get(workloads.get(c, workload_id), workload_id)
        if not _would_start(workload):
            return workload
        quotas.take_again(c, workload.id, workload.tenant_id, now_us)
        open_ones = [lease for lease in leases.of_workload(c, workload.id) if lease.state is not LeaseState.ENDED]
        live = {lease.replica for lease in open_ones}
        fresh = [new_lease(workload, n, now_us) for n in range(workload.spec.replicas) if n not in live]
        for lease in fresh:
            leases.insert(c, lease)
        if tenant is not None:
            hold_for_launch(c, yard, tenant, prices_of(c, workload, [*open_ones, *fresh]), now_us)
        workloads.set_desired(c, workload.id, Desired.RUN, now_us)
        workloads.set_state(c, workload.id, WorkloadState.PENDING, None, {}, None, now_us)
        events.append(c, [_event("workload.pending", workload, actor, now_us)])
        changed = workloads.get(c, workload.id)
    yard.wake.set()
    return _get(changed, workload_id)


def _would_start(workload: Workload) -> bool:
    """Whether starting it changes anything. Raises YardError `wrong_state` where it cannot start."""
    if workload.state is WorkloadState.SUCCEEDED or workload.desired is Desired.REMOVE:
        raise YardError("wrong_state", noun="workload", state=workload.state, wanted="running")
    return workload.desired is not Desired.RUN or workload.state is WorkloadState.FAILED


def remove(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks it to go, disk and logs included; what it cost stays. Removing what is removed changes nothing."""
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        workload = _get(workloads.get(c, workload_id), workload_id)
        if workload.desired is Desired.REMOVE:
            return workload
        workloads.set_desired(c, workload.id, Desired.REMOVE, now_us)
        workloads.set_state(c, workload.id, WorkloadState.REMOVING, None, {}, workload.exit_code, now_us)
        events.append(c, [_event("workload.removing", workload, actor, now_us)])
        changed = workloads.get(c, workload.id)
    yard.wake.set()
    return _get(changed, workload_id)


def _get(workload: Workload | None, wanted: str) -> Workload:
    if workload is None:
        raise YardError("workload_not_found", workload=wanted)
    return workload


def _event(kind: str, workload: Workload, actor: str, now_us: int) -> Event:
    return Event(kind, workload.id, now_us, workload.tenant_id, actor, {"name": workload.name})
