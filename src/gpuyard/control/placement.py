"""Gives slices to the leases that wait for them: snapshot -> Plan -> guarded transactions.

A plan is applied some leases at a time, so that nobody waits long for the store; each part holds only as long as
nothing but the parts before it has changed the fleet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from gpuyard.control.applying import StaleError, apply_lease
from gpuyard.control.cpu_only import cpu_only_price_nano
from gpuyard.control.fleet_view import FleetView
from gpuyard.control.sharing_wishes import under_mps
from gpuyard.control.waiting import take_standing, waiting_leases
from gpuyard.control.world import LeaseChange, Moment
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.fleet import Card, Node
from gpuyard.model.leases import Lease, PurchaseOption, Terms
from gpuyard.model.mig import MigCut
from gpuyard.model.slices import Slice, SliceShape
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Workload
from gpuyard.scheduling.cycle import Decision, Standing, decide
from gpuyard.scheduling.mig_slices import ONLY_MIG
from gpuyard.scheduling.plan import Learning, Placement, Request, Snapshot
from gpuyard.slicing.ladder import guarantee
from gpuyard.store import events, fleet, leases, placements

LEASES_A_PART = 4
YIELD_SECONDS = 0.0002
NO_PRICES: Final[Mapping[str, int]] = {}


def take_snapshot(
    c: Connection,
    nodes: Sequence[Node],
    open_leases: Sequence[Lease],
    workloads: Mapping[str, Workload],
    prices_nano: Mapping[str, int] = NO_PRICES,
) -> Snapshot:
    """The fleet as a scheduler sees it, from one reading of the store."""
    return FleetView().take(c, nodes, open_leases, workloads, prices_nano)


def request_for(lease_id: str, workload: Workload, waits_since_us: int) -> Request:
    """What a scheduler needs to know of a lease that waits."""
    spec, wish = workload.spec, workload.spec.slices
    return Request(
        lease_id=lease_id,
        shape=wish.shape,
        count=0 if workload.cpu_only else wish.count,
        card_model=None if workload.cpu_only else wish.card_model,
        cpu_milli=workload.cpu_milli,
        memory_bytes=workload.memory_bytes,
        group=workload.id if spec.is_gang else None,
        tenant_id=workload.tenant_id,
        priority=spec.priority,
        spot=spec.option is PurchaseOption.SPOT,
        created_us=waits_since_us,
        time_limit_us=spec.time_limit_us,
        mode=ONLY_MIG if wish.mig else wish.sharing.value,
        instances=workload.runtime != "container",
    )


def place(
    yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now: Moment, view: FleetView
) -> tuple[int, Snapshot, Standing, Decision] | None:
    """Decides over every waiting lease and applies the plan. Returns how many got slices, and what was decided on what;
    None where nobody waits. `view` is what earlier plans have seen of the fleet.

    Raises StaleError where the plan has become stale; what it already granted stays, and the next look plans again.
    """
    waiting = sorted(waiting_leases(open_leases, workloads), key=lambda lease: (lease.created_us, lease.id))
    if not waiting:
        return None
    with yard.store.read() as c:
        snapshot = view.take(c, yard.roster.nodes, open_leases, workloads, yard.book.on_demand_nano)
        standing = take_standing(c, yard, open_leases, workloads, now.at_us, view.running)
    requests = [request_for(lease.id, workloads[lease.workload_id], lease.created_us) for lease in waiting]
    _learn(yard, requests)
    decision = decide(yard.scheduler, snapshot, requests, standing, now.at_us)
    by_id = {lease.id: lease for lease in waiting}
    version = decision.plan.snapshot_version
    for part in parts_of_plan(decision.plan.placements, requests):
        with yard.store.write() as c:
            if not fleet.advance(c, version):
                raise StaleError("fleet")
            told: list[Event] = []
            for placement in part:
                lease = by_id[placement.lease_id]
                told += _grant(c, yard, lease, workloads[lease.workload_id], placement, now)
            events.append(c, told)
        version += 1
        time.sleep(YIELD_SECONDS)
    return len(decision.plan.placements), snapshot, standing, decision


def _learn(yard: Yard, requests: Sequence[Request]) -> None:
    """Tells the scheduler of those that did not wait at the last look, where it learns from arrivals."""
    waiting = frozenset(request.lease_id for request in requests)
    fresh = [request for request in requests if request.lease_id not in yard.arrived]
    yard.arrived = waiting
    if fresh and isinstance(yard.scheduler, Learning):
        yard.scheduler = yard.scheduler.having_seen(fresh)


def parts_of_plan(placements: Sequence[Placement], requests: Sequence[Request]) -> list[list[Placement]]:
    """The placements in parts of a few leases; a gang is never parted: each part is one transaction."""
    groups = {request.lease_id: request.group for request in requests}
    parts: list[list[Placement]] = []
    previous: str | None = None
    for placement in placements:
        group = groups[placement.lease_id]
        same_gang = group is not None and group == previous
        if not parts or (len(parts[-1]) >= LEASES_A_PART and not same_gang):
            parts.append([])
        parts[-1].append(placement)
        previous = group
    return parts


def _cut_shape(card: Card, cut: MigCut | None) -> SliceShape | None:
    """What the instance really has, which may be more than was asked for; the price is of what was asked for."""
    profile = None if card.mig is None or cut is None else card.mig.profile(cut.place.profile_id)
    return None if card.mig is None or profile is None else card.mig.shape(profile)


def _grant(
    c: Connection,
    yard: Yard,
    lease: Lease,
    workload: Workload,
    placement: Placement,
    now: Moment,
) -> list[Event]:
    shape = workload.spec.slices.shape
    cards = [card for uuid in placement.card_uuids if (card := yard.roster.card(uuid)) is not None]
    engine, kind = yard.engine, workload.runtime
    held = engine.shim_on(kind), under_mps(yard, workload.spec.slices.sharing, kind), engine.kernel_on(kind)
    levels = {card.uuid: guarantee(card, shape, kind, *held).guarantee for card in cards}
    cut = tuple(
        Slice(lease.id, card.uuid, _cut_shape(card, placement.mig) or shape, levels[card.uuid], placement.mig)
        for card in cards
    )
    granted = replace(
        lease,
        state=LeaseState.GRANTED,
        node=placement.node,
        slices=cut,
        terms=Terms(
            currency=yard.book.currency,
            active_per_hour_nano=_price_nano(yard, lease, workload, cards),
            stopped_per_hour_nano=yard.book.stopped_nano(workload.spec.disk_bytes),
            minimum_us=yard.book.minimum_us,
        ),
        reason=None,
        updated_us=now.at_us,
    )
    leases.hold(c, lease.id, cut)
    why = {**placement.terms, "scheduler": placement.why, "waited_us": max(0, now.at_us - lease.updated_us)}
    placements.place(c, lease.id, {**why, "cpus": placement.cpus} if placement.cpus else why, now.at_us)
    return apply_lease(c, LeaseChange(lease, granted, now), workload)


def _price_nano(yard: Yard, lease: Lease, workload: Workload, cards: Sequence[Card]) -> int:
    """What an hour on these cards costs, by the book in force; without any, what the book asks for that."""
    if workload.cpu_only:
        return cpu_only_price_nano(yard, workload.spec.kind, lease.option)
    shape, spot = workload.spec.slices.shape, lease.option is PurchaseOption.SPOT
    most = workload.spec.max_price_nano
    prices = [yard.book.price_nano(card.model, shape.share_of_card_ppm(card.memory_bytes), spot) for card in cards]
    return sum(each if most is None else min(each, most) for each in prices)  # nobody pays more than was bid
