"""What the queue is told of the yard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from gpuyard.control.yard import Yard
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.mig import MigCut
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SECOND_US
from gpuyard.model.workloads import Desired, Workload, WorkloadSpec
from gpuyard.scheduling.cycle import Standing
from gpuyard.scheduling.running import Running
from gpuyard.scheduling.spot_room import ANY, Demand, spot_room
from gpuyard.store import demand, moves, placements, shares
from gpuyard.store.moves import Move, MoveState
from gpuyard.store.placements import Notice, PlacementRow

HOLDING: Final = frozenset({LeaseState.GRANTED, LeaseState.ACTIVE})


def waiting_leases(open_leases: Sequence[Lease], workloads: Mapping[str, Workload]) -> list[Lease]:
    """Leases that want slices now. A gang of which some members were told to go waits until all of them have gone."""
    told = {
        lease.workload_id
        for lease in open_leases
        if lease.state in HOLDING and workloads[lease.workload_id].spec.is_gang
    }
    reclaimed = {lease.workload_id for lease in open_leases if lease.reason == "reclaimed"}
    return [
        lease
        for lease in open_leases
        if lease.state is LeaseState.REQUESTED
        and workloads[lease.workload_id].desired is Desired.RUN
        and lease.workload_id not in told & reclaimed
    ]


def take_standing(
    c: Connection,
    yard: Yard,
    open_leases: Sequence[Lease],
    workloads: Mapping[str, Workload],
    now_us: int,
    view: RunningView | None = None,
) -> Standing:
    """All that the queue has to know besides the requests, from one reading of the store. `view`: what an earlier one
    has made of leases that are as they were."""
    notices = placements.notices(c)
    # What was reclaimed, and what is safe, matters for spot alone: others need not be looked up.
    spot = [lease.id for lease in open_leases if lease.option is PurchaseOption.SPOT]
    rows = placements.of(c, spot)
    on_their_way = moves.under_way(c)
    running = (view or RunningView()).take(open_leases, workloads, rows, notices, now_us)
    running = with_moves(running, on_their_way, workloads, open_leases, now_us)
    return Standing(
        running=tuple(running),
        shares=shares.every(c),
        spot_room_ppm=room_for_spot(c, yard, open_leases, workloads, now_us) if spot else {},
        promised=frozenset(notice.notice_for for notice in notices.values())
        | {move.wanted_for for move in on_their_way.values() if move.wanted_for is not None},
        policy=yard.queue,
    )


# What is counted on for a move, beside the time that its workload may take to stop: it is started elsewhere by then.
MOVES_WITHIN_US: Final = 30 * SECOND_US


def with_moves(
    running: Iterable[Running],
    on_their_way: Mapping[str, Move],
    workloads: Mapping[str, Workload],
    open_leases: Iterable[Lease],
    now_us: int,
) -> list[Running]:
    """What runs, where leases on their way leave their source soon and nobody else's target is anybody's."""
    grace = {lease.id: workloads[lease.workload_id].spec.stop_grace_us for lease in open_leases}
    found: list[Running] = []
    for lease in running:
        move = on_their_way.get(lease.lease_id)
        if move is None:
            found.append(lease)
            continue
        leaves_us = max(now_us, move.begun_us + grace[lease.lease_id] + MOVES_WITHIN_US)
        switched = move.state is MoveState.SWITCHED
        here = replace(lease, noticed=True, ends_us=lease.ends_us if switched else leaves_us)
        kept = replace(
            here,
            lease_id=move.id,
            gang=move.id,
            tenant_id="",  # what is held twice for a moment counts once against its tenant
            spot=False,
            node=move.held.node,
            card_uuids=move.held.uuids,
            ends_us=leaves_us if switched else lease.ends_us,
        )
        found += (here, kept)
    return found


def running_leases(
    open_leases: Iterable[Lease],
    workloads: Mapping[str, Workload],
    rows: Mapping[str, PlacementRow],
    notices: Mapping[str, Notice],
    now_us: int,
) -> list[Running]:
    """Every lease that holds slices, as the scheduler sees it."""
    return RunningView().take(open_leases, workloads, rows, notices, now_us)


class RunningView:
    """Leases that hold slices, kept from one plan to the next: those that are as they were are not made anew."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Lease, WorkloadSpec, bool, Running]] = {}

    def take(
        self,
        open_leases: Iterable[Lease],
        workloads: Mapping[str, Workload],
        rows: Mapping[str, PlacementRow],
        notices: Mapping[str, Notice],
        now_us: int,
    ) -> list[Running]:
        """See `running_leases`."""
        found: list[Running] = []
        before, self._known = self._known, {}
        for lease in open_leases:
            if lease.state not in HOLDING or lease.node is None:
                continue
            workload, row, notice = workloads[lease.workload_id], rows.get(lease.id), notices.get(lease.id)
            spec, known = workload.spec, before.get(lease.id)
            same = known is not None and (known[0] is lease and known[1] is spec and known[2] == workload.cpu_only)
            if known is None or not same or row is not None or notice is not None:
                known = lease, spec, workload.cpu_only, _running(lease, lease.node, workload, row, notice, now_us)
            if row is None and notice is None and spec.time_limit_us is None:  # nothing that the time changes
                self._known[lease.id] = known
            found.append(known[3])
        return found


def _running(
    lease: Lease, node: str, workload: Workload, row: PlacementRow | None, notice: Notice | None, now_us: int
) -> Running:
    spec = workload.spec
    started_us = lease.run_started_us if lease.run_started_us is not None else lease.updated_us
    limit_us = None if spec.time_limit_us is None else max(now_us, started_us + spec.time_limit_us)
    ends = [end for end in (limit_us, None if notice is None else max(now_us, notice.until_us)) if end is not None]
    return Running(
        lease_id=lease.id,
        gang=lease.workload_id if spec.is_gang else lease.id,
        tenant_id=lease.tenant_id,
        node=node,
        card_uuids=tuple(cut.card_uuid for cut in lease.slices),
        shape=lease.slices[0].shape if _instance_of(lease) else spec.slices.shape,
        cpu_milli=workload.cpu_milli,
        memory_bytes=workload.memory_bytes,
        priority=spec.priority,
        spot=lease.option is PurchaseOption.SPOT,
        started_us=started_us,
        checkpoint_us=None if row is None else row.checkpoint_us,
        reclaimed_us=None if row is None else row.reclaimed_us,
        noticed=notice is not None,
        ends_us=min(ends, default=None),
        mig=_instance_of(lease),
        mode=spec.slices.sharing.value,
    )


def _instance_of(lease: Lease) -> MigCut | None:
    return lease.slices[0].mig if lease.slices else None


def wanted_ppm(yard: Yard, open_leases: Iterable[Lease], workloads: Mapping[str, Workload]) -> dict[str, int]:
    """Compute that all but spot hold or wait for, by card model; what would take any model under ANY."""
    wanted: dict[str, int] = defaultdict(int)
    for lease in open_leases:
        if lease.option is PurchaseOption.SPOT or workloads[lease.workload_id].cpu_only:
            continue
        wish = workloads[lease.workload_id].spec.slices
        if lease.state is LeaseState.REQUESTED and workloads[lease.workload_id].desired is Desired.RUN:
            wanted[wish.card_model or ANY] += wish.shape.compute_ppm * wish.count
        for cut in lease.slices:
            card = yard.roster.card(cut.card_uuid)
            wanted[card.model if card is not None else ANY] += cut.shape.compute_ppm
    return dict(wanted)


def room_for_spot(
    c: Connection, yard: Yard, open_leases: Iterable[Lease], workloads: Mapping[str, Workload], now_us: int
) -> dict[str, int]:
    """What spot leases may take in all, from what the others are likely to want."""
    capacity: dict[str, int] = defaultdict(int)
    for card in yard.roster.cards:
        capacity[card.model] += 1_000_000
    history = [Demand(*row) for row in demand.history(c)]
    return spot_room(history, capacity, wanted_ppm(yard, open_leases, workloads), now_us)
