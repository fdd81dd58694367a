"""What should become of one lease, given what its unit is seen to do. Pure: looking twice decides the same."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.control.moving_decisions import change_places, go_on, goes_on, leaves
from gpuyard.control.stopping import UNPAID_GRACE_US
from gpuyard.control.world import LeaseChange, Moment, StartUnit, StopUnit, Verdict, World, reclaim_grace_us
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.model.leases import REBOOTING, RECLAIMED, Lease, Proof
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SECOND_US
from gpuyard.model.workloads import Desired, RestartPolicy, Workload, WorkloadKind
from gpuyard.store.meters import Meter

MAX_BACKOFF_US = 60 * SECOND_US
# A unit that ran this long was well: its next failure counts as the first one again.
WELL_AFTER_US = 60 * SECOND_US
# A reboot is billed like running; a unit that is not back by then could not be started, and nothing of that is billed.
BACK_WITHIN_US = 60 * SECOND_US


def decide_lease(lease: Lease, workload: Workload, world: World, verdict: Verdict) -> Lease:
    """Adds to the verdict what this lease calls for, and returns the lease as it will be."""
    observation = world.observations.get(lease.unit_name)
    meter = world.meters.get(lease.id)
    if lease.state is LeaseState.REQUESTED:
        return _requested(lease, workload, world, verdict)
    if lease.state is LeaseState.GRANTED:
        return _granted(lease, workload, observation, meter, world, verdict)
    if lease.state is LeaseState.ACTIVE:
        return _active(lease, workload, observation, meter, world, verdict)
    if lease.state is LeaseState.STOPPED:
        return _stopped(lease, workload, meter, world, verdict)
    return lease


def _change(
    verdict: Verdict, before: Lease, after: Lease, moment: Moment, proof: Proof = Proof.OBSERVED, release: bool = False
) -> Lease:
    after = replace(after, updated_us=max(after.updated_us, moment.at_us), slices=() if release else after.slices)
    if release:
        after = replace(after, node=None)
    verdict.lease_changes.append(LeaseChange(before, after, moment, proof, release))
    return after


def _present(meter: Meter | None, world: World) -> Moment:
    """Now, on the meter's own time base."""
    return moment_of(world.now.monotonic_ns, world.now.boot_id, meter, world.now)


def _granted_moment(lease: Lease, meter: Meter | None, world: World) -> Moment:
    """When a granted lease without a running unit goes elsewhere: now, but a reboot that comes to nothing ends as it
    began, and costs nothing."""
    return (_last_proven(meter) if lease.reboots else None) or _present(meter, world)


def _is_late(lease: Lease, meter: Meter | None, world: World) -> bool:
    """Whether a rebooted unit has not come back in the time that its tenant pays for."""
    if not lease.reboots or meter is None:
        return False
    return meter.boot_id != world.now.boot_id or world.now.at_us - meter.start_us > BACK_WITHIN_US


def _requested(lease: Lease, workload: Workload, world: World, verdict: Verdict) -> Lease:
    if workload.desired is Desired.RUN:
        return lease  # the placement loop's business
    state = LeaseState.STOPPED if workload.desired is Desired.STOP else LeaseState.ENDED
    return _change(verdict, lease, replace(lease, state=state), world.now)


def _granted(
    lease: Lease,
    workload: Workload,
    observation: Observation | None,
    meter: Meter | None,
    world: World,
    verdict: Verdict,
) -> Lease:
    wanted = workload.desired is Desired.RUN
    moment = _granted_moment(lease, meter, world)
    if (observation is None or observation.state is UnitState.CREATED) and _is_late(lease, meter, world):
        return _change(verdict, lease, replace(lease, reason=None), moment)
    if observation is None:
        if not wanted:
            state = LeaseState.STOPPED if workload.desired is Desired.STOP else LeaseState.ENDED
            return _change(verdict, lease, replace(lease, state=state), moment, release=True)
        if goes_on(lease, observation, world):
            return go_on(lease, world, verdict, moment)
        if not all(cut.card_uuid in world.healthy_cards for cut in lease.slices):
            after = replace(lease, state=LeaseState.REQUESTED, reason="card_missing")
            return _change(verdict, lease, after, moment, release=True)
        if lease.reason == "gang_broken":
            after = replace(lease, state=LeaseState.ENDED)
            return _change(verdict, lease, after, moment, release=True)
        if lease.id in world.locked:  # it waits for its tenant, who pays for no slices meanwhile and has none
            after = replace(lease, state=LeaseState.REQUESTED, reason=None)
            return _change(verdict, lease, after, moment, release=True)
        if world.goes(lease, workload):
            return _change(verdict, lease, _requeued(lease), moment, release=True)
        _prove(lease, meter, _present(meter, world), world, verdict)
        if world.now.at_us >= lease.not_before_us:
            verdict.actions.append(StartUnit(lease))
        return lease
    if observation.state is UnitState.CREATED:
        _prove(lease, meter, _present(meter, world), world, verdict)
        if not wanted or lease.reason == "gang_broken" or world.goes(lease, workload) or leaves(lease, world):
            verdict.actions.append(StopUnit(lease.unit_name, workload.runtime, 0, ()))
        return lease
    if observation.started_ns is not None:
        started = moment_of(observation.started_ns, observation.boot_id, meter, world.now)
        running = replace(
            lease,
            state=LeaseState.ACTIVE,
            reason=lease.reason if lease.reason == "gang_broken" else None,
            exit_code=None,
            run_started_us=lease.run_started_us if lease.run_started_us is not None else started.at_us,
        )
        lease = _change(verdict, lease, running, started)
        meter = None  # the next one begins at `started`, on this observation's boot
    if observation.state is UnitState.EXITED:
        return _exited(lease, workload, observation, meter, world, verdict)
    return lease


def _active(
    lease: Lease,
    workload: Workload,
    observation: Observation | None,
    meter: Meter | None,
    world: World,
    verdict: Verdict,
) -> Lease:
    if observation is None or observation.state is UnitState.EXITED:
        return _exited(lease, workload, observation, meter, world, verdict)
    if world.proofs_due and observation.proven_ns is not None and not leaves(lease, world):
        moment = moment_of(observation.proven_ns, observation.boot_id, meter, world.now)
        _prove(lease, meter, moment, world, verdict)
    limit_us = workload.spec.time_limit_us
    over = (
        limit_us is not None and lease.run_started_us is not None and world.now.at_us - lease.run_started_us >= limit_us
    )
    if over and lease.reason != "time_limit":
        lease = _change(verdict, lease, replace(lease, reason="time_limit"), world.now)
    if over or workload.desired is not Desired.RUN:
        spec = workload.spec
        unpaid = workload.reason == "credit_exhausted"
        grace_us = min(spec.stop_grace_us, UNPAID_GRACE_US) if unpaid else spec.stop_grace_us
        verdict.actions.append(StopUnit(lease.unit_name, workload.runtime, grace_us, spec.checkpoint_command))
    elif world.goes(lease, workload) or lease.reason in {"gang_broken", REBOOTING} or leaves(lease, world):
        notice = world.notices.get(lease.id)
        grace_us = workload.spec.stop_grace_us if notice is None else reclaim_grace_us(notice, workload)
        command = workload.spec.checkpoint_command
        verdict.actions.append(StopUnit(lease.unit_name, workload.runtime, grace_us, command))
    return lease


def _stopped(lease: Lease, workload: Workload, meter: Meter | None, world: World, verdict: Verdict) -> Lease:
    if workload.desired is Desired.RUN:
        again = replace(
            lease,
            state=LeaseState.REQUESTED,
            run=lease.run + 1,
            attempt=lease.attempt + 1,
            restarts=0,
            reason=None,
            exit_code=None,
            not_before_us=0,
            run_started_us=None,
        )
        return _change(verdict, lease, again, _present(meter, world))
    if workload.desired is Desired.REMOVE:
        return _change(verdict, lease, replace(lease, state=LeaseState.ENDED), _present(meter, world))
    _prove(lease, meter, _present(meter, world), world, verdict)
    return lease


def _exited(
    lease: Lease,
    workload: Workload,
    observation: Observation | None,
    meter: Meter | None,
    world: World,
    verdict: Verdict,
) -> Lease:
    """The unit is gone: the interval ends at the last proven moment, and the lease goes where it should."""
    moment, proof = _end_of(observation, meter, world.now)
    if lease.reboots and meter is not None:
        moment, proof = _granted_moment(lease, meter, world), Proof.LAST_PROVEN  # it never ran again
    reason = "vanished" if observation is None else observation.reason or "exited"
    if lease.reason in {"time_limit", "gang_broken"} and reason == "stopped":
        reason = lease.reason
    elif reason == "stopped" and workload.desired is Desired.RUN and world.goes(lease, workload):
        return _change(verdict, lease, _requeued(lease), moment, proof, release=True)
    elif reason == "stopped" and workload.desired is Desired.RUN and leaves(lease, world):
        return change_places(lease, world, verdict, meter, moment, proof)
    elif lease.state is LeaseState.GRANTED and workload.desired is Desired.RUN and goes_on(lease, observation, world):
        return go_on(lease, world, verdict, moment)
    if lease.state is LeaseState.ACTIVE and lease.reason == REBOOTING and workload.desired is Desired.RUN:
        return _change(verdict, lease, _between_units(lease), moment, proof)
    exit_code = None if observation is None else observation.exit_code
    detail = observation.detail if observation is not None and reason == "start_failed" else None
    ended = replace(lease, reason=reason, exit_code=exit_code, detail=detail)
    state = _state_after_exit(ended, workload, observation, world.now)
    if state is LeaseState.GRANTED:
        ran_us = moment.at_us - (lease.run_started_us or moment.at_us)
        restarts = 1 if lease.state is LeaseState.ACTIVE and ran_us >= WELL_AFTER_US else lease.restarts + 1
        backoff_us = min(MAX_BACKOFF_US, SECOND_US * 2 ** min(restarts - 1, 6))
        ended = replace(ended, attempt=lease.attempt + 1, restarts=restarts, not_before_us=world.now.at_us + backoff_us)
    return _change(verdict, lease, replace(ended, state=state), moment, proof, release=state is not LeaseState.GRANTED)


def _between_units(lease: Lease) -> Lease:
    """A lease whose unit has ended, however, while it was to be rebooted: same slices, same run, no failure counted."""
    return replace(lease, state=LeaseState.GRANTED, attempt=lease.attempt + 1, exit_code=None, not_before_us=0)


def _requeued(lease: Lease) -> Lease:
    """A reclaimed lease, as it waits again: same run and same count of restarts, so that being reclaimed costs its
    tenant neither a minimum charge nor a try; its time limit begins anew."""
    return replace(
        lease,
        state=LeaseState.REQUESTED,
        reason=RECLAIMED,
        exit_code=None,
        attempt=lease.attempt + 1,
        not_before_us=0,
        run_started_us=None,
    )


def break_gang(lease: Lease, verdict: Verdict, world: World) -> Lease:
    """Marks a live replica of a job whose other replica has failed for good: it is to end too."""
    if lease.reason == "gang_broken":
        return lease
    moment = _granted_moment(lease, world.meters.get(lease.id), world) if lease.reboots else world.now
    if lease.state is LeaseState.REQUESTED:
        return _change(verdict, lease, replace(lease, state=LeaseState.ENDED, reason="gang_broken"), moment)
    return _change(verdict, lease, replace(lease, reason="gang_broken"), moment)


def _state_after_exit(lease: Lease, workload: Workload, observation: Observation | None, now: Moment) -> LeaseState:
    spec = workload.spec
    is_job = spec.kind is WorkloadKind.JOB
    if workload.desired is Desired.REMOVE:
        return LeaseState.ENDED
    if lease.reason == "gang_broken":
        return LeaseState.ENDED
    by_itself = lease.reason not in {"stopped", "time_limit"}
    if workload.desired is Desired.STOP or not by_itself:
        finished = is_job and (by_itself or lease.reason == "time_limit")
        return LeaseState.ENDED if finished else LeaseState.STOPPED
    if _should_restart(lease, workload, observation, now):
        return LeaseState.GRANTED
    return LeaseState.ENDED if is_job else LeaseState.STOPPED


def _should_restart(lease: Lease, workload: Workload, observation: Observation | None, now: Moment) -> bool:
    spec = workload.spec
    host_lost_it = observation is None or observation.boot_id != now.boot_id
    if host_lost_it and spec.kind is not WorkloadKind.JOB:
        return True
    if spec.restart is RestartPolicy.ALWAYS:
        return True
    failed = lease.exit_code != 0
    return spec.restart is RestartPolicy.ON_FAILURE and failed and lease.restarts < spec.max_restarts


def _end_of(observation: Observation | None, meter: Meter | None, now: Moment) -> tuple[Moment, Proof]:
    if observation is None:
        return (_last_proven(meter) or now), Proof.LAST_PROVEN
    if observation.proven_ns is None:
        return moment_of(now.monotonic_ns, now.boot_id, meter, now), Proof.OBSERVED
    proof = Proof.EXIT_RECORD if observation.recorded else Proof.HEARTBEAT
    if meter is not None and meter.boot_id != observation.boot_id:
        return _last_proven(meter) or now, Proof.LAST_PROVEN
    return moment_of(observation.proven_ns, observation.boot_id, meter, now), proof


def _last_proven(meter: Meter | None) -> Moment | None:
    return None if meter is None else Moment(meter.proven_us, meter.proven_ns, meter.boot_id)


def moment_of(monotonic_ns: int, boot_id: str, meter: Meter | None, now: Moment) -> Moment:
    """Yard time of a monotonic reading: counted from the meter's start where both belong to one boot, so that a
    duration is exact whatever the wall clock did; else from now; else the last proven moment. Never after now and never
    before the meter's start."""
    if meter is not None and meter.boot_id == boot_id:
        at_us = meter.start_us + max(0, monotonic_ns - meter.monotonic_start_ns) // 1000
        return Moment(max(meter.start_us, min(at_us, max(now.at_us, meter.proven_us))), monotonic_ns, boot_id)
    if boot_id == now.boot_id:
        at_us = now.at_us - max(0, now.monotonic_ns - monotonic_ns) // 1000
        return Moment(max(at_us, meter.proven_us) if meter else at_us, monotonic_ns, boot_id)
    return _last_proven(meter) or now


def _prove(lease: Lease, meter: Meter | None, moment: Moment, world: World, verdict: Verdict) -> None:
    if lease.reboots:
        return  # nothing is proven before the unit runs again
    if world.proofs_due and meter is not None and moment.at_us > meter.proven_us:
        verdict.proofs.append((lease.id, moment.at_us, moment.monotonic_ns))
