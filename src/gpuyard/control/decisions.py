"""What should become of every workload and lease, given what is seen. Pure; the loops apply it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from gpuyard.control.lease_decisions import break_gang, decide_lease
from gpuyard.control.stopping import BY_THE_YARD
from gpuyard.control.world import RemoveDisks, StopUnit, Verdict, WorkloadChange, World
from gpuyard.engines.runtime import UnitState
from gpuyard.model.leases import REBOOTING, RECLAIMED, Lease
from gpuyard.model.states import WORKLOAD, LeaseState, WorkloadState
from gpuyard.model.workloads import Desired, WhenReclaimed, Workload, WorkloadKind

_DONE = frozenset({WorkloadState.SUCCEEDED, WorkloadState.FAILED, WorkloadState.REMOVED})


class Rest(NamedTuple):
    """Workloads that are known to call for nothing, unless it is time to write down what is proven, and their units."""

    workloads: Collection[str] = ()
    units: Collection[str] = ()


NO_REST: Final = Rest()


def decide(world: World, rest: Rest = NO_REST) -> Verdict:
    """Everything that this look at the world calls for. What is at rest is left out: looking at it changes nothing."""
    verdict = Verdict()
    leases: dict[str, list[Lease]] = defaultdict(list)
    expected: set[str] = set()
    if world.proofs_due:
        rest = NO_REST
    for lease in world.leases:
        if lease.workload_id in rest.workloads:
            continue
        workload = world.workloads[lease.workload_id]
        after = decide_lease(lease, workload, world, verdict)
        leases[workload.id].append(after)
        if LeaseState.GRANTED in (lease.state, after.state) or LeaseState.ACTIVE in (lease.state, after.state):
            expected |= {lease.unit_name, after.unit_name}
    for workload_id, mine in leases.items():
        if world.workloads[workload_id].spec.is_gang and any(_failed(lease) for lease in mine):
            leases[workload_id] = [x if x.state is LeaseState.ENDED else break_gang(x, verdict, world) for x in mine]
    for workload in world.workloads.values():
        if workload.id not in rest.workloads:
            _decide_workload(workload, leases.get(workload.id, ()), world, verdict)
    for name, observation in world.observations.items():
        if observation.state is not UnitState.EXITED and name not in rest.units and name not in expected:
            verdict.actions.append(StopUnit(name, None, 0, ()))  # nobody leases what it runs on
    return verdict


def _decide_workload(workload: Workload, leases: Sequence[Lease], world: World, verdict: Verdict) -> None:
    live = [lease for lease in leases if lease.state is not LeaseState.ENDED]
    desired: Desired | None = None
    if at_rest(workload, leases):
        return
    if workload.desired is Desired.REMOVE:
        state = WorkloadState.REMOVING
        if not live:
            verdict.actions.append(RemoveDisks(workload))  # the applier marks it removed once they are gone
    elif workload.desired is Desired.RUN and _goes_for_good(workload, leases):
        state, desired = WorkloadState.REMOVING, Desired.REMOVE
    elif not leases and workload.state in _DONE | {WorkloadState.STOPPED}:
        return
    else:
        state = _derive(workload, leases)
        if workload.desired is Desired.RUN and state is WorkloadState.STOPPED:
            if all(lease.reason == "stopped" for lease in live):
                state = WorkloadState.PENDING  # stopped and then asked to start again, before the stop was done
            else:
                desired = Desired.STOP  # it ended by itself or reached its limit: it is not wanted to run any more
    reason, params, exit_code = _explain(workload, state, leases, world)
    if (state, reason, exit_code, dict(params)) == (
        workload.state,
        workload.reason,
        workload.exit_code,
        dict(workload.reason_params),
    ) and desired is None:
        return
    WORKLOAD.check(workload.state, state)
    verdict.workload_changes.append(WorkloadChange(workload, state, reason, params, exit_code, desired))


def _failed(lease: Lease) -> bool:
    """Whether a replica has ended for good and not well, while its job was to run."""
    return lease.state is LeaseState.ENDED and not (lease.exit_code == 0 and lease.reason == "exited")


def _goes_for_good(workload: Workload, leases: Sequence[Lease]) -> bool:
    """Whether slices of it were taken back, and it was asked to go with them."""
    return workload.spec.when_reclaimed is WhenReclaimed.REMOVE and any(
        lease.state is LeaseState.REQUESTED and lease.reason == RECLAIMED for lease in leases
    )


def at_rest(workload: Workload, leases: Sequence[Lease]) -> bool:
    """The common case, told quickly: it runs, as it should, and there is nothing to explain."""
    return (
        workload.state is WorkloadState.RUNNING
        and workload.desired is Desired.RUN
        and workload.reason is None
        and workload.exit_code is None
        and len(leases) == workload.spec.replicas
        and all(lease.state is LeaseState.ACTIVE and lease.reason is None for lease in leases)
    )


def _derive(workload: Workload, leases: Sequence[Lease]) -> WorkloadState:
    """A workload's state is the sum of its leases' states and of what was asked for."""
    states = {lease.state for lease in leases}
    if states <= {LeaseState.ENDED}:
        if not leases:
            return workload.state
        well = all(lease.exit_code == 0 and lease.reason == "exited" for lease in leases)
        return WorkloadState.SUCCEEDED if well else WorkloadState.FAILED
    if states <= {LeaseState.STOPPED, LeaseState.ENDED}:
        asked = workload.desired is Desired.STOP or workload.spec.kind is not WorkloadKind.SERVICE
        return WorkloadState.STOPPED if asked else WorkloadState.PENDING
    if workload.desired is Desired.STOP:
        return WorkloadState.STOPPING
    if LeaseState.ACTIVE in states and (
        workload.spec.kind is WorkloadKind.SERVICE or states <= {LeaseState.ACTIVE, LeaseState.ENDED}
    ):
        return WorkloadState.RUNNING
    return WorkloadState.STARTING if LeaseState.GRANTED in states else WorkloadState.PENDING


def _explain(
    workload: Workload, state: WorkloadState, leases: Sequence[Lease], world: World
) -> tuple[str | None, Mapping[str, object], int | None]:
    """Why the workload is in its state: a text key, its facts, and the exit code there is."""
    exit_codes = [lease.exit_code for lease in leases if lease.exit_code is not None]
    exit_code = next((code for code in exit_codes if code), exit_codes[0] if exit_codes else None)
    if state is WorkloadState.REMOVING and (workload.reason == RECLAIMED or _goes_for_good(workload, leases)):
        return RECLAIMED, {}, exit_code
    if state is WorkloadState.PENDING:
        for lease in leases:
            if lease.id in world.pending_reasons:
                return "waiting_for_slices", world.pending_reasons[lease.id], None
        return None, {}, None
    if state in (WorkloadState.STARTING, WorkloadState.RUNNING):
        return (*_explain_start(workload, leases, world), exit_code if state is WorkloadState.STARTING else None)
    if workload.reason in BY_THE_YARD and state is not WorkloadState.REMOVING:
        return workload.reason, workload.reason_params, exit_code  # a lease knows only that it was stopped
    if state in (WorkloadState.STOPPED, WorkloadState.SUCCEEDED, WorkloadState.FAILED):
        for lease in leases:
            if lease.reason:
                return lease.reason, _exit_params(lease, world), exit_code
    return None, {}, exit_code


def _explain_start(workload: Workload, leases: Sequence[Lease], world: World) -> tuple[str | None, dict[str, object]]:
    for lease in leases:
        if lease.state is LeaseState.ACTIVE and lease.reason == REBOOTING:
            return REBOOTING, {}
        if lease.state is not LeaseState.GRANTED:
            continue
        if error := world.start_errors.get(lease.unit_name):
            return "waiting_for_engine", {"runtime": workload.runtime, "detail": error}
        observation = world.observations.get(lease.unit_name)
        if observation is not None and observation.state is UnitState.CREATED and observation.detail:
            return "pulling", {"detail": observation.detail}
        if lease.reason:
            return lease.reason, _exit_params(lease, world)
    return None, {}


def _exit_params(lease: Lease, world: World) -> dict[str, object]:
    params: dict[str, object] = {}
    if lease.exit_code is not None:
        params["exit_code"] = lease.exit_code
    observation = world.observations.get(lease.unit_name)
    if lease.reason == "start_failed":
        params["detail"] = lease.detail or (observation.detail if observation else None) or "--"
    return params
