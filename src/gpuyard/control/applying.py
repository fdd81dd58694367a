"""Writes a verdict down: what belongs to one workload in one transaction, or none of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from gpuyard.control.world import LeaseChange, Moment, Verdict, WorkloadChange
from gpuyard.model.events import Event
from gpuyard.model.leases import UNPRICED, Interval, Lease
from gpuyard.model.slices import share_of
from gpuyard.model.states import LEASE, LeaseState
from gpuyard.model.workloads import Workload
from gpuyard.store import events, fleet, leases, meters, moves, placements, workloads

METERED = frozenset({LeaseState.GRANTED, LeaseState.ACTIVE, LeaseState.STOPPED})


WORKLOADS_A_PART = 4  # some milliseconds of work


class StaleError(Exception):
    """Something changed under the look that this verdict came from: look again."""


def parts_of(verdict: Verdict) -> list[Verdict]:
    """The verdict in parts of a few workloads each, what belongs to one workload together. Every part is a transaction
    of its own: whoever waits to write waits for a part, not for all of them."""
    by_workload: dict[str, Verdict] = defaultdict(Verdict)
    for change in verdict.lease_changes:
        by_workload[change.before.workload_id].lease_changes.append(change)
    for change in verdict.workload_changes:
        by_workload[change.workload.id].workload_changes.append(change)
    each = list(by_workload.values())
    parts = [_joined(each[start : start + WORKLOADS_A_PART]) for start in range(0, len(each), WORKLOADS_A_PART)]
    if verdict.proofs:
        parts.append(Verdict(proofs=verdict.proofs))
    return parts


def _joined(verdicts: Sequence[Verdict]) -> Verdict:
    joined = Verdict()
    for verdict in verdicts:
        joined.lease_changes += verdict.lease_changes
        joined.workload_changes += verdict.workload_changes
    return joined


def apply_part(c: Connection, part: Verdict, known: Mapping[str, Workload], now_us: int) -> None:
    """Applies all changes of a part inside the caller's transaction.

    Raises StaleError where a lease is no longer in the state that was seen, or a workload is no longer wanted as it
    was; the caller rolls back.
    """
    told: list[Event] = []
    for change in part.lease_changes:
        told += apply_lease(c, change, known[change.before.workload_id])
    for change in part.workload_changes:
        told += _apply_workload(c, change, now_us)
    if part.proofs:
        meters.advance(c, part.proofs)
    if told:
        events.append(c, told)


def apply_lease(c: Connection, change: LeaseChange, workload: Workload) -> list[Event]:
    """One arrow of the lease machine with its meter, slices and events.

    Raises StaleError.
    """
    before, after = change.before, change.after
    LEASE.check(before.state, after.state)
    if not leases.update(c, after, expected=before.state):
        raise StaleError(before.id)
    if change.release and (leases.release(c, after.id) or not before.slices):  # or its CPU and memory alone
        fleet.advance(c, fleet.version(c))
        _note_release(c, after)
    if change.move is not None:
        _swap(c, after, change.move, change.moment.at_us)
    if before.state == after.state and before.reboots == after.reboots:
        return []
    told: list[Event] = []
    if before.state in METERED:
        interval = meters.close(c, before.id, change.moment.at_us, change.moment.monotonic_ns, change.proof)
        if interval is not None:
            told.append(_interval_event(interval))
    if after.state in METERED and after.terms is not None:  # stopped before it was ever granted: it holds nothing
        open_meter(c, after, workload, change.moment)
    told.append(
        Event(
            kind=f"lease.{after.state}",
            subject=after.id,
            at_us=change.moment.at_us,
            tenant_id=after.tenant_id,
            data={
                "workload_id": after.workload_id,
                "replica": after.replica,
                "attempt": after.attempt,
                "node": after.node,
                "reason": after.reason,
                "exit_code": after.exit_code,
                "share_ppm": share_of(after.slices),
            },
        )
    )
    return told


def _note_release(c: Connection, lease: Lease) -> None:
    """The notice of a lease that has let go is done with; what is known of one that has ended is of no use any more."""
    if lease.state is LeaseState.ENDED:
        placements.drop(c, lease.id)
    elif lease.reason == "reclaimed":
        placements.reclaimed(c, lease.id, lease.updated_us)
    else:
        placements.withdraw(c, lease.id)


def _swap(c: Connection, lease: Lease, move: moves.Move, now_us: int) -> None:
    """The lease takes the place that the move holds and leaves its own to the move; a move back ends with it.

    Raises StaleError where the move is not at that point any more.
    """
    leases.release(c, lease.id)
    leases.hold(c, lease.id, lease.slices)
    back = move.state is moves.MoveState.SWITCHED
    done = moves.end(c, move.id, moves.MoveState.UNDONE, now_us) if back else moves.switch(c, move.id, now_us)
    if not done:
        raise StaleError(move.id)
    fleet.advance(c, fleet.version(c))
    here, there = (move.start, move.end) if back else (move.end, move.start)
    why = {"scheduler": "moved_back" if back else f"moved_{move.cause}", "from": there.node}
    if here.cpus is not None:
        why["cpus"] = here.cpus
    placements.place(c, lease.id, why, now_us)


def open_meter(c: Connection, lease: Lease, workload: Workload, moment: Moment) -> None:
    """Begins to count the lease's present state, at the price that its terms set for it."""
    terms = lease.terms
    price = 0
    if terms is not None:
        price = {
            LeaseState.ACTIVE: terms.active_per_hour_nano,
            LeaseState.GRANTED: terms.active_per_hour_nano if lease.reboots else 0,
            LeaseState.STOPPED: terms.stopped_per_hour_nano,
        }.get(lease.state, 0)
    meters.open(
        c,
        meters.Meter(
            lease_id=lease.id,
            tenant_id=lease.tenant_id,
            workload_id=lease.workload_id,
            workload_name=workload.name,
            offer=workload.spec.slices.offer or "custom",
            state=lease.state,
            run=lease.run,
            start_us=moment.at_us,
            node=lease.node,
            boot_id=moment.boot_id,
            monotonic_start_ns=moment.monotonic_ns,
            proven_us=moment.at_us,
            proven_ns=moment.monotonic_ns,
            price_per_hour_nano=price,
            currency=terms.currency if terms else UNPRICED,
            minimum_us=terms.minimum_us if terms else 0,
            card_uuids=tuple(cut.card_uuid for cut in lease.slices),
            share_ppm=share_of(lease.slices),
        ),
    )


def _interval_event(interval: Interval) -> Event:
    return Event(
        kind="interval.closed",
        subject=interval.lease_id,
        at_us=interval.end_us,
        tenant_id=interval.tenant_id,
        data={
            "sequence": interval.sequence,
            "state": interval.state,
            "duration_us": interval.duration_us,
            "proof": interval.proof,
        },
    )


def _apply_workload(c: Connection, change: WorkloadChange, now_us: int) -> Sequence[Event]:
    workload = change.workload
    if workloads.desired_of(c, workload.id) is not workload.desired:
        raise StaleError(workload.id)  # its tenant asked for something else meanwhile
    if change.desired is not None:
        workloads.set_desired(c, workload.id, change.desired, now_us)
    workloads.set_state(c, workload.id, change.state, change.reason, change.reason_params, change.exit_code, now_us)
    if change.state is workload.state and change.reason == workload.reason:
        return ()
    return (
        Event(
            kind=f"workload.{change.state}",
            subject=workload.id,
            at_us=now_us,
            tenant_id=workload.tenant_id,
            data={"name": workload.name, "reason": change.reason, "exit_code": change.exit_code},
        ),
    )
