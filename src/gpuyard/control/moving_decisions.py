"""What a move means for its lease, given what its unit is seen to do. Pure, like all decisions about leases.

Reserved: the unit is asked to save its work and end. Once it has, the lease changes places: it holds the target, and
the move the source. Where it cannot be started there, it changes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gpuyard.control.world import LeaseChange, Moment, Verdict, World
from gpuyard.engines.runtime import Observation
from gpuyard.model.leases import Lease, Proof
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SECOND_US
from gpuyard.store.meters import Meter
from gpuyard.store.moves import Move, MoveState, Place

START_WITHIN_US: Final = 60 * SECOND_US  # where it cannot be started at the target by then, it goes back


def leaves(lease: Lease, world: World) -> bool:
    """Whether the lease's unit is to end because the lease is on its way to another place."""
    move = world.moves.get(lease.id)
    return move is not None and move.state is MoveState.RESERVED


def change_places(
    lease: Lease, world: World, verdict: Verdict, meter: Meter | None, moment: Moment, proof: Proof
) -> Lease:
    """The unit has ended for the move: the lease is granted the target, or, where that has become unusable, its own
    place again. What it ran since it was asked to end is not counted: the move is the yard's wish."""
    move = world.moves[lease.id]
    if meter is not None and meter.state is LeaseState.ACTIVE:
        moment = _not_after(moment, max(move.begun_us, meter.proven_us), meter)
    target = move.end if _usable(move.end, world) else None
    return _granted_at(lease, move, target, verdict, moment, proof)


def goes_on(lease: Lease, observation: Observation | None, world: World) -> bool:
    """Whether a granted lease without a running unit should change places now: to the target, as nothing runs that
    would have to end first, or back to the source, as it cannot be started at the target."""
    move = world.moves.get(lease.id)
    if move is None:
        return False
    if move.state is MoveState.RESERVED:
        return observation is None and _usable(move.end, world)
    if not _usable(move.start, world):
        return False
    failed = observation is not None and observation.reason == "start_failed"
    late = move.switched_us is not None and world.now.at_us - move.switched_us >= START_WITHIN_US
    stuck = observation is None and (not _usable(move.end, world) or (late and lease.unit_name in world.start_errors))
    return failed or stuck


def go_on(lease: Lease, world: World, verdict: Verdict, moment: Moment) -> Lease:
    """Changes places as `goes_on` says."""
    move = world.moves[lease.id]
    return _granted_at(lease, move, move.held, verdict, moment, Proof.OBSERVED)


def _granted_at(lease: Lease, move: Move, place: Place | None, verdict: Verdict, moment: Moment, proof: Proof) -> Lease:
    after = replace(
        lease,
        state=LeaseState.GRANTED,
        reason="moved",
        exit_code=None,
        detail=None,
        attempt=lease.attempt + 1,
        not_before_us=0,
        node=lease.node if place is None else place.node,
        slices=lease.slices if place is None else move.slices_at(place),
        updated_us=max(lease.updated_us, moment.at_us),
    )
    verdict.lease_changes.append(LeaseChange(lease, after, moment, proof, move=None if place is None else move))
    return after


def _usable(place: Place, world: World) -> bool:
    return all(uuid in world.healthy_cards for uuid in place.uuids)


def _not_after(moment: Moment, at_us: int, meter: Meter) -> Moment:
    if moment.at_us <= at_us:
        return moment
    since_us = max(0, at_us - meter.start_us)
    return Moment(meter.start_us + since_us, meter.monotonic_start_ns + since_us * 1000, meter.boot_id)
