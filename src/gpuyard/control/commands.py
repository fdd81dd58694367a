"""What a tenant may ask of workloads: stop, start, reboot, remove. Each says what is wanted; the loops make it so.

Several are asked for in one transaction: all of them, or none where one cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.control import quotas
from gpuyard.control.affording import hold_for_launch, must_have_money, prices_of
from gpuyard.control.cpu_only import cpu_only_price_nano
from gpuyard.control.launching import new_lease
from gpuyard.control.launching_claims import Claim, claim_of
from gpuyard.control.offering import price_nano
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import REBOOTING, Lease
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.tenants import Tenant
from gpuyard.model.workloads import Desired, Workload, WorkloadSpec
from gpuyard.store import events, fleet, leases, tenants, workloads

Command = Callable[[Yard, str, str], Workload]
Commands = Callable[[Yard, Sequence[str], str], list[Workload]]

_FINISHED = frozenset({WorkloadState.SUCCEEDED, WorkloadState.FAILED})


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks for the step, and when."""

    yard: Yard
    actor: str
    now_us: int
    owners: Mapping[str, Tenant]
    cpu_only: bool = False


_Step = Callable[[Connection, _Asked, Workload], bool]


def stop(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks it to stop; its disk is kept. Stopping what is stopped changes nothing.

    Raises YardError `wrong_state` for what has finished or is being removed.
    """
    return stop_each(yard, [workload_id], actor)[0]


def start(yard: Yard, workload_id: str, actor: str, cpu_only: bool = False) -> Workload:
    """Asks it to run again, on the disk that it left; with `cpu_only` without its cards. Starting what runs so changes
    nothing.

    Raises YardError `wrong_state` for a job that succeeded and for what is being removed, `cpu_only_refused`,
    `cpu_only_switch` for what still runs the other way, `insufficient_credit` and `budget_exhausted`.
    """
    return start_each(yard, [workload_id], actor, cpu_only)[0]


def start_cpu_only(yard: Yard, workload_id: str, actor: str) -> Workload:
    """`start` without its cards."""
    return start(yard, workload_id, actor, cpu_only=True)


def reboot(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks its units to end and to start anew, on the slices and disks that they have. A reboot is billed through, is
    no failure, and asking for one that is under way changes nothing.

    Raises YardError `wrong_state` for what does not run.
    """
    return reboot_each(yard, [workload_id], actor)[0]


def remove(yard: Yard, workload_id: str, actor: str) -> Workload:
    """Asks it to go, disk and logs included; what it cost stays. Removing what is removed changes nothing."""
    return remove_each(yard, [workload_id], actor)[0]


def stop_each(yard: Yard, workload_ids: Sequence[str], actor: str) -> list[Workload]:
    """`stop` of all or none."""
    return _each(yard, workload_ids, actor, _stop)


def start_each(yard: Yard, workload_ids: Sequence[str], actor: str, cpu_only: bool = False) -> list[Workload]:
    """`start` of all or none."""
    with yard.store.read() as c:
        found = [_get(c, workload_id) for workload_id in workload_ids]
        known = {workload.tenant_id: tenants.find(c, workload.tenant_id) for workload in found}
        owners = {tenant_id: owner for tenant_id, owner in known.items() if owner is not None}
        for tenant_id in {workload.tenant_id for workload in found if _would_start(workload)} & owners.keys():
            must_have_money(c, yard, owners[tenant_id], yard.clock.now_us())
    return _each(yard, workload_ids, actor, _start, owners, cpu_only)


def reboot_each(yard: Yard, workload_ids: Sequence[str], actor: str) -> list[Workload]:
    """`reboot` of all or none."""
    return _each(yard, workload_ids, actor, _reboot)


def remove_each(yard: Yard, workload_ids: Sequence[str], actor: str) -> list[Workload]:
    """`remove` of all or none."""
    return _each(yard, workload_ids, actor, _remove)


def _each(
    yard: Yard,
    workload_ids: Sequence[str],
    actor: str,
    step: _Step,
    owners: Mapping[str, Tenant] | None = None,
    cpu_only: bool = False,
) -> list[Workload]:
    asked = _Asked(yard, actor, yard.clock.now_us(), owners or {}, cpu_only)
    with yard.store.write() as c:
        changed = [step(c, asked, _get(c, workload_id)) for workload_id in workload_ids]
        after = [_get(c, workload_id) for workload_id in workload_ids]
    if any(changed):
        yard.wake.set()
    return after


def _stop(c: Connection, asked: _Asked, workload: Workload) -> bool:
    if workload.state in _FINISHED or workload.desired is Desired.REMOVE:
        raise YardError("wrong_state", noun="workload", state=workload.state, wanted="stopped")
    if workload.desired is Desired.STOP:
        return False
    workloads.set_desired(c, workload.id, Desired.STOP, asked.now_us)
    workloads.set_state(c, workload.id, WorkloadState.STOPPING, None, {}, None, asked.now_us)
    return _tell(c, asked, workload, "workload.stopping")


def _start(c: Connection, asked: _Asked, workload: Workload) -> bool:
    if not _would_start(workload):
        if workload.cpu_only is not asked.cpu_only:
            raise _no_switch(workload, asked)
        return False
    open_ones = [lease for lease in leases.of_workload(c, workload.id) if lease.state is not LeaseState.ENDED]
    claim = _switched(asked, workload, open_ones)
    quotas.take_again(c, workload.id, workload.tenant_id, asked.now_us, claim)
    if claim is not None:
        workloads.set_cpu_only(c, workload.id, asked.cpu_only)
        fleet.advance(c, fleet.version(c))  # a plan that was made for the other way is stale
    live = {lease.replica for lease in open_ones}
    fresh = [new_lease(workload, n, asked.now_us) for n in range(workload.spec.replicas) if n not in live]
    for lease in fresh:
        leases.insert(c, lease)
    owner = asked.owners.get(workload.tenant_id)
    if owner is not None:
        starting = [*open_ones, *fresh]
        prices = prices_of(c, workload, starting)
        if claim is not None:
            each = claim.spend_per_hour_nano // workload.spec.replicas
            prices = {lease.id: (workload.spec.slices.offer or "custom", each) for lease in starting}
        hold_for_launch(c, asked.yard, owner, prices, asked.now_us)
    workloads.set_desired(c, workload.id, Desired.RUN, asked.now_us)
    workloads.set_state(c, workload.id, WorkloadState.PENDING, None, {}, None, asked.now_us)
    return _tell(c, asked, workload, "workload.pending")


def _switched(asked: _Asked, workload: Workload, open_ones: Sequence[Lease]) -> Claim | None:
    """What it counts for from now on where it starts without its cards, or with them again; None where nothing of that
    is new. Raises YardError `cpu_only_refused`, and `cpu_only_switch` while a unit of it still runs the other way."""
    spec = workload.spec
    price = cpu_only_price_nano(asked.yard, spec.kind, spec.option) if asked.cpu_only else None
    if workload.cpu_only is asked.cpu_only:
        return None
    if any(lease.state in (LeaseState.GRANTED, LeaseState.ACTIVE) for lease in open_ones):
        raise _no_switch(workload, asked)
    return claim_of(spec, _price_with_cards(asked.yard, spec) if price is None else price, asked.cpu_only)


def _price_with_cards(yard: Yard, spec: WorkloadSpec) -> int:
    """What an hour with its cards will cost; nothing yet where no such card is here now: then it waits for one."""
    try:
        return price_nano(yard, spec.slices, spec.option)
    except YardError:
        return 0


def _no_switch(workload: Workload, asked: _Asked) -> YardError:
    wanted = "without" if asked.cpu_only else "with"
    return YardError("cpu_only_switch", workload=workload.name, state=workload.state, wanted=wanted)


def _would_start(workload: Workload) -> bool:
    """Whether starting it changes anything. Raises YardError `wrong_state` where it cannot start."""
    if workload.state is WorkloadState.SUCCEEDED or workload.desired is Desired.REMOVE:
        raise YardError("wrong_state", noun="workload", state=workload.state, wanted="running")
    return workload.desired is not Desired.RUN or workload.state is WorkloadState.FAILED


def _reboot(c: Connection, asked: _Asked, workload: Workload) -> bool:
    held = leases.of_workload(c, workload.id)
    under_way = any(lease.reason == REBOOTING for lease in held)
    runs = [lease for lease in held if lease.state is LeaseState.ACTIVE]
    if workload.desired is not Desired.RUN or not (runs or under_way):
        raise YardError("wrong_state", noun="workload", state=workload.state, wanted="rebooted")
    # One that is about to end for another reason ends for that.
    changed = [leases.mark(c, lease.id, REBOOTING, asked.now_us) for lease in runs]
    if not any(changed):
        return False
    workloads.set_state(c, workload.id, workload.state, REBOOTING, {}, None, asked.now_us)
    return _tell(c, asked, workload, "workload.rebooting")


def _remove(c: Connection, asked: _Asked, workload: Workload) -> bool:
    if workload.desired is Desired.REMOVE:
        return False
    workloads.set_desired(c, workload.id, Desired.REMOVE, asked.now_us)
    workloads.set_state(c, workload.id, WorkloadState.REMOVING, None, {}, workload.exit_code, asked.now_us)
    return _tell(c, asked, workload, "workload.removing")


def _get(c: Connection, workload_id: str) -> Workload:
    found = workloads.get(c, workload_id)
    if found is None:
        raise YardError("workload_not_found", workload=workload_id)
    return found


def _tell(c: Connection, asked: _Asked, workload: Workload, kind: str) -> bool:
    data = {"name": workload.name}
    events.append(c, [Event(kind, workload.id, asked.now_us, workload.tenant_id, asked.actor, data)])
    return True
