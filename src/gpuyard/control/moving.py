"""Begins moves of running leases and brings them to their end: for those that fit nowhere, and in hours of low load.

A move is a row of the store (see `store.moves`). It begins as one transaction against the fleet's version that reserves
the target; what becomes of the lease is decided with all else about leases (`moving_decisions`); here it ends. So a
yard that is killed anywhere goes on, or back, from the row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from gpuyard.control.applying import StaleError
from gpuyard.control.movable import is_movable
from gpuyard.control.placement import take_snapshot
from gpuyard.control.residency import data_may_move
from gpuyard.control.sharing_wishes import under_mps
from gpuyard.control.waiting import HOLDING, take_standing
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease
from gpuyard.model.names import new_id
from gpuyard.model.states import LeaseState
from gpuyard.model.units import HOUR_US, SECOND_US
from gpuyard.model.workloads import Desired, Workload
from gpuyard.scheduling.cycle import Decision, Standing
from gpuyard.scheduling.parting import part
from gpuyard.scheduling.plan import Snapshot
from gpuyard.scheduling.relocating import (
    Allowed,
    Relocation,
    relocate_for,
    relocate_to_empty_nodes,
    within_budget,
)
from gpuyard.scheduling.running import Running
from gpuyard.scheduling.sharing import WholeAtPeak
from gpuyard.scheduling.topology import near_cpus
from gpuyard.slicing.ladder import guarantee
from gpuyard.store import events, fleet, idle, leases, moves, placements
from gpuyard.store.moves import Move, MoveCause, MoveState, Place

GANGS_A_LOOK: Final = 2  # for which room is looked for at once
DAY_US: Final = 24 * HOUR_US
EMPTY_NODES_EVERY_US: Final = 300 * SECOND_US


def finish_moves(
    yard: Yard,
    on_their_way: Mapping[str, Move],
    open_leases: Sequence[Lease],
    workloads: Mapping[str, Workload],
    now_us: int,
) -> bool:
    """Ends the moves whose lease runs at its target, or will not go on. Returns whether there were any."""
    by_id = {lease.id: lease for lease in open_leases}
    over = [
        (move, state)
        for move in on_their_way.values()
        if (state := _end_of(move, by_id.get(move.lease_id), workloads, yard.roster.usable)) is not None
    ]
    if not over:
        return False
    with yard.store.write() as c:
        told: list[Event] = []
        for move, state in over:
            if moves.end(c, move.id, state, now_us):
                fleet.advance(c, fleet.version(c))  # the other place is free
                told.append(_event("moved" if state is MoveState.DONE else "move_undone", move, now_us))
        events.append(c, told)
    return True


def _end_of(
    move: Move, lease: Lease | None, workloads: Mapping[str, Workload], usable: frozenset[str]
) -> MoveState | None:
    switched = move.state is MoveState.SWITCHED
    workload = None if lease is None else workloads.get(lease.workload_id)
    if lease is None or workload is None or lease.state not in HOLDING:
        return MoveState.DONE if switched else MoveState.UNDONE
    if switched:
        return MoveState.DONE if lease.state is LeaseState.ACTIVE else None
    if workload.desired is not Desired.RUN:
        return MoveState.UNDONE
    # A unit that runs was asked to end already: its move goes on whatever becomes of the target.
    lost = not all(uuid in usable for uuid in move.end.uuids)
    return MoveState.UNDONE if lost and lease.state is LeaseState.GRANTED else None


def move_for_the_waiting(
    yard: Yard,
    snapshot: Snapshot,
    standing: Standing,
    decision: Decision,
    open_leases: Sequence[Lease],
    workloads: Mapping[str, Workload],
    now_us: int,
) -> bool:
    """Begins moves for the first gangs that fit nowhere and for which nobody is told to go or on the way yet. The
    snapshot is that of a decision which placed nothing. Returns whether any move began."""
    if yard.make_engine is None:
        return False
    held = {refusal.lease_id: refusal for refusal in decision.plan.refusals}
    able = [gang for gang in decision.waiting if not gang.head.spot and held[gang.head.lease_id].ever]
    for gang in able[:GANGS_A_LOOK]:
        lacks = {shortfall.lacks for shortfall in held[gang.head.lease_id].shortfalls}
        if lacks <= {"quota", "queued"} or any(member.lease_id in standing.promised for member in gang.members):
            continue
        movable, most, allowed = _budget(yard, open_leases, workloads, now_us)
        found = relocate_for(yard.make_engine, snapshot, standing.running, gang.members, movable, most, allowed)
        if found:
            _begin(yard, snapshot, standing.running, found, MoveCause.BLOCKED, gang.head.lease_id, workloads, now_us)
            return True
    return False


def empty_nodes(yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now_us: int) -> bool:
    """Within the operator's window, and while little of the pool is leased and nobody waits: begins moves that empty
    nodes. Returns whether any began."""
    window = yard.moves.window
    waits = any(lease.state is LeaseState.REQUESTED for lease in open_leases)
    if yard.make_engine is None or window is None or not window.holds(now_us) or waits:
        return False
    with yard.store.read() as c:
        snapshot = take_snapshot(c, yard.roster.nodes, open_leases, workloads, yard.book.on_demand_nano)
        standing = take_standing(c, yard, open_leases, workloads, now_us)
        busy = bool(moves.under_way(c))
    if busy or _leased_ppm(snapshot) >= yard.moves.low_load_ppm:
        return False
    movable, most, allowed = _budget(yard, open_leases, workloads, now_us)
    found = relocate_to_empty_nodes(yard.make_engine, snapshot, standing.running, movable, most, allowed)
    if found:
        _begin(yard, snapshot, standing.running, found, MoveCause.LOW_LOAD, None, workloads, now_us)
    return bool(found)


def part_leases(yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now_us: int) -> bool:
    """Outside of the operator's hours of sharing, and while nobody waits: begins moves to empty cards of paying leases
    that share one. Never in the window in which nodes are emptied, which would undo it. Returns whether any began."""
    policy, emptying = yard.scheduler, yard.moves.window
    waits = any(lease.state is LeaseState.REQUESTED for lease in open_leases)
    if not isinstance(policy, WholeAtPeak) or policy.sharing.holds(now_us) or waits:
        return False
    if emptying is not None and emptying.holds(now_us):
        return False
    movable, most, allowed = _budget(yard, open_leases, workloads, now_us)
    if not movable or most <= 0:
        return False
    with yard.store.read() as c:
        snapshot = take_snapshot(c, yard.roster.nodes, open_leases, workloads, yard.book.on_demand_nano)
        standing = take_standing(c, yard, open_leases, workloads, now_us)
        busy = bool(moves.under_way(c))
    found = () if busy else part(policy.inner, snapshot, standing.running, movable, most, allowed, now_us)
    if found:
        _begin(yard, snapshot, standing.running, found, MoveCause.PEAK, None, workloads, now_us)
    return bool(found)


def _leased_ppm(snapshot: Snapshot) -> int:
    cards = [card for node in snapshot.nodes if node.schedulable for card in node.cards if card.schedulable]
    return sum(1_000_000 - card.compute_free_ppm for card in cards) // max(1, len(cards))


def _budget(
    yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now_us: int
) -> tuple[frozenset[str], int, Allowed]:
    """What may be moved now, how many, and which sets of them."""
    policy = yard.moves
    with yard.store.read() as c:
        on_their_way = moves.under_way(c)
        in_the_hour = sum(moves.begun_since(c, now_us - HOUR_US).values())
        in_the_day = moves.begun_since(c, now_us - DAY_US)
        spells = idle.spells(c).values()
    by_id = {lease.id: lease for lease in open_leases}
    quiet = {spell.workload_id for spell in spells if spell.since_us >= 0 and spell.paused_us is None}
    moving = {by_id[lease_id].workload_id for lease_id in on_their_way if lease_id in by_id}
    movable = frozenset(
        lease.id
        for lease in (open_leases if data_may_move(yard) else ())
        if lease.workload_id not in moving
        and in_the_day.get(lease.id, 0) < policy.moves_a_day_each
        and is_movable(lease, workloads[lease.workload_id], open_leases, quiet)
    )
    tenants = {lease.id: lease.tenant_id for lease in open_leases}
    of = {lease.id: lease.workload_id for lease in open_leases}
    busy = Counter(move.tenant_id for move in on_their_way.values())
    return movable, policy.moves_an_hour - in_the_hour, within_budget(tenants, of, busy, policy.at_once_of_tenant)


def _begin(
    yard: Yard,
    snapshot: Snapshot,
    running: Sequence[Running],
    found: Sequence[Relocation],
    cause: MoveCause,
    wanted_for: str | None,
    workloads: Mapping[str, Workload],
    now_us: int,
) -> None:
    """Reserves every target in one transaction, or none. Raises StaleError where the fleet has changed meanwhile."""
    by_id = {lease.lease_id: lease for lease in running}
    with yard.store.write() as c:
        if not fleet.advance(c, snapshot.version):
            raise StaleError("fleet")
        told: list[Event] = []
        for relocation in found:
            lease = leases.get(c, relocation.lease_id)
            if lease is None or lease.state is not LeaseState.ACTIVE or lease.node is None:
                raise StaleError(relocation.lease_id)
            seen = by_id[lease.id]
            move = Move(
                id=new_id("mv", now_us),
                lease_id=lease.id,
                tenant_id=lease.tenant_id,
                cause=cause,
                wanted_for=wanted_for,
                state=MoveState.RESERVED,
                start=_held(c, lease, lease.node),
                end=_target(yard, snapshot, relocation, seen, workloads[lease.workload_id]),
                shape=seen.shape,
                cpu_milli=seen.cpu_milli,
                memory_bytes=seen.memory_bytes,
                begun_us=now_us,
            )
            moves.begin(c, move)
            told.append(_event("move_begun", move, now_us))
        events.append(c, told)


def _held(c: Connection, lease: Lease, node: str) -> Place:
    row = placements.of(c, [lease.id]).get(lease.id)
    cpus = None if row is None else row.why.get("cpus")
    cards = tuple((cut.card_uuid, cut.guarantee) for cut in lease.slices)
    return Place(node, cards, cpus if isinstance(cpus, str) else None)


def _target(yard: Yard, snapshot: Snapshot, relocation: Relocation, seen: Running, workload: Workload) -> Place:
    shim = yard.engine.shim_on(workload.runtime)
    mps = under_mps(yard, workload.spec.slices.sharing, workload.runtime)
    cards = [card for uuid in relocation.card_uuids if (card := yard.roster.card(uuid)) is not None]
    if len(cards) != len(relocation.card_uuids):
        raise StaleError(relocation.lease_id)
    levels = ((card.uuid, guarantee(card, seen.shape, workload.runtime, shim, mps).guarantee) for card in cards)
    node = next(node for node in snapshot.nodes if node.name == relocation.node)
    return Place(relocation.node, tuple(levels), near_cpus(node, relocation.card_uuids))


def _event(kind: str, move: Move, now_us: int) -> Event:
    data = {"move": move.id, "cause": move.cause.value, "from": move.start.node, "to": move.end.node}
    return Event(f"lease.{kind}", move.lease_id, now_us, move.tenant_id, data=data)
