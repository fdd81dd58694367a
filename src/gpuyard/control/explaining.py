"""Why a workload is where it is, or why it waits: the facts, for whoever puts them into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpuyard.control.placement import request_for, take_snapshot
from gpuyard.control.waiting import HOLDING, running_leases
from gpuyard.control.yard import Yard
from gpuyard.model.leases import Lease
from gpuyard.model.slices import SliceShape
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Workload
from gpuyard.scheduling.backfill import reserve
from gpuyard.scheduling.plan import Request, Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.running import Running, released
from gpuyard.store import leases, moves, placements, workloads
from gpuyard.store.moves import Move
from gpuyard.store.placements import PlacementRow


@dataclass(frozen=True, slots=True)
class Wait:
    """Where in the queue a workload stands (0: nobody is before it; None: not planned yet), of how many, when it starts
    at the earliest (None: nobody knows), whether room is kept for it, and what would let it start at once."""

    position: int | None
    length: int
    start_us: int | None
    kept: bool
    changes: tuple[str, ...]
    never: bool


@dataclass(frozen=True, slots=True)
class Why:
    """All that there is to tell: placed leases with their rows, and the wait of those that have no slices."""

    workload: Workload
    placed: tuple[tuple[Lease, PlacementRow], ...]
    reclaimed: tuple[PlacementRow, ...]
    wait: Wait | None
    moving: tuple[tuple[Lease, Move], ...] = ()
    making_room: int = 0  # leases on their way so that it can start


def why(yard: Yard, workload: Workload) -> Why:
    """The facts as of now. A wait is looked into by planning again: with what ends, and with less asked for."""
    now_us = yard.clock.now_us()
    with yard.store.read() as c:
        known = {found.id: found for found in workloads.unsettled(c)}
        open_leases = [lease for lease in leases.open_leases(c) if lease.workload_id in known]
        mine = [lease for lease in open_leases if lease.workload_id == workload.id]
        rows = placements.of(c, [lease.id for lease in mine])
        on_their_way = moves.under_way(c)
        waits = [lease for lease in mine if lease.state is LeaseState.REQUESTED]
        wait = None
        if waits:
            snapshot = take_snapshot(c, yard.roster.nodes, open_leases, known, yard.book.on_demand_nano)
            running = running_leases(open_leases, known, {}, placements.notices(c), now_us)
            requests = [request_for(lease.id, workload, lease.created_us) for lease in waits]
            wait = _wait(yard, snapshot, running, requests, now_us, held_by(workload))
    placed = tuple((lease, rows[lease.id]) for lease in mine if lease.state in HOLDING and lease.id in rows)
    reclaimed = tuple(rows[lease.id] for lease in mine if lease.id in rows and rows[lease.id].reclaims)
    moving = tuple((lease, on_their_way[lease.id]) for lease in mine if lease.id in on_their_way)
    waiting_ids = {lease.id for lease in waits}
    making_room = sum(move.wanted_for in waiting_ids for move in on_their_way.values())
    return Why(workload, placed, reclaimed, wait, moving, making_room)


def _wait(
    yard: Yard,
    snapshot: Snapshot,
    running: Sequence[Running],
    requests: Sequence[Request],
    now_us: int,
    held: Sequence[str],
) -> Wait:
    head = requests[0]
    gang = Gang(head.group or head.lease_id, tuple(requests) if head.group else (head,))
    queue = yard.waiting
    kept = gang.id in queue.starts_us
    start_us = queue.starts_us.get(gang.id)
    if start_us is None:
        found = reserve(yard.scheduler, snapshot, gang, running, now_us, open_ended=False)
        start_us = None if found is None else found.start_us
    empty = released(snapshot, running)
    never = bool(yard.scheduler.plan(empty, gang.members, now_us).refusals)
    return Wait(
        position=queue.order.index(gang.id) if gang.id in queue.order else None,
        length=len(queue.order),
        start_us=start_us,
        kept=kept,
        changes=tuple(held) or _changes(yard, snapshot, gang.members, now_us),
        never=never,
    )


def held_by(workload: Workload) -> tuple[str, ...]:
    """What holds a waiting workload apart from cards: `quota`, or the limit of spot (`spot_room`)."""
    shortfalls = workload.reason_params.get("shortfalls")
    lacks = {lack.get("lacks") for lack in shortfalls} if isinstance(shortfalls, list) else set[object]()
    return tuple(key for key in ("quota", "spot_room", "outbid", "volume_key") if key in lacks)


_HALF: Final = 2


def _changes(yard: Yard, snapshot: Snapshot, members: Sequence[Request], now_us: int) -> tuple[str, ...]:
    """What would let it start at once, as text keys of `why.change.<key>`; each was tried."""
    head = members[0]
    tries: dict[str, list[Request]] = {}
    if head.card_model is not None:
        tries["any_model"] = [replace(member, card_model=None) for member in members]
    if head.count > 1:
        tries["one_card"] = [replace(member, count=1) for member in members]
    half = SliceShape(max(1, head.shape.memory_bytes // _HALF), max(1, head.shape.compute_ppm // _HALF))
    tries["half_slice"] = [replace(member, shape=half) for member in members]
    tries["less_cpu"] = [replace(member, cpu_milli=0, memory_bytes=0) for member in members]
    if len(members) > 1:
        tries["fewer_replicas"] = list(members[: max(1, len(members) // _HALF)])
    return tuple(key for key, asked in tries.items() if _fits(yard, snapshot, asked, now_us))


def _fits(yard: Yard, snapshot: Snapshot, asked: Sequence[Request], now_us: int) -> bool:
    return not yard.scheduler.plan(snapshot, asked, now_us).refusals


def shown_terms(row: PlacementRow) -> Mapping[str, object]:
    """What spoke for a placement, without what is told apart."""
    return {key: value for key, value in row.why.items() if key not in {"scheduler", "waited_us", "cpus", "from"}}
