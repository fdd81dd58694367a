"""Tells spot leases to go for those that wait, and takes it back where it is not needed any more.

A notice is a row of the store: whatever dies, the lease goes at its time. What a notice leads to is decided with all
else about leases (`lease_decisions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gpuyard.control.applying import StaleError
from gpuyard.control.bidding import BY_PRICE, is_outbid
from gpuyard.control.waiting import HOLDING
from gpuyard.control.world import World, reclaim_grace_us
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease
from gpuyard.model.states import LeaseState
from gpuyard.model.times import to_text
from gpuyard.model.workloads import Desired, Workload
from gpuyard.scheduling.cycle import Decision, Standing
from gpuyard.scheduling.plan import Snapshot
from gpuyard.scheduling.reclaim import Reclaim, plan_reclaim
from gpuyard.store import events, leases, placements
from gpuyard.store.placements import Notice

GANGS_A_LOOK: Final = 4  # for which victims are looked for at once


def reclaim_for_the_waiting(
    yard: Yard,
    snapshot: Snapshot,
    standing: Standing,
    decision: Decision,
    workloads: Mapping[str, Workload],
    now_us: int,
) -> bool:
    """Gives notice to spot leases for the first gangs that wait and for which nobody was told to go yet. The snapshot
    is that of a decision which placed nothing. Returns whether anybody was told."""
    if not any(lease.spot for lease in standing.running):
        return False
    told, running = False, standing.running
    held = {refusal.lease_id: refusal for refusal in decision.plan.refusals}
    able = [gang for gang in decision.waiting if not gang.head.spot and held[gang.head.lease_id].ever]
    for gang in able[:GANGS_A_LOOK]:
        lacks = {shortfall.lacks for shortfall in held[gang.head.lease_id].shortfalls}
        if lacks <= {"quota", "queued"} or any(member.lease_id in standing.promised for member in gang.members):
            continue
        found = plan_reclaim(yard.scheduler, snapshot, gang, running, now_us, yard.reclaim)
        if found is not None:
            _notify(yard, found, workloads, now_us)
            running = tuple(lease for lease in running if lease.lease_id not in found.lease_ids)
            told = True
    return told


def _notify(yard: Yard, found: Reclaim, workloads: Mapping[str, Workload], now_us: int) -> None:
    """All victims are told in one transaction, or none. Raises StaleError where one of them has gone meanwhile."""
    until_us = now_us + yard.reclaim.notice_us
    with yard.store.write() as c:
        told: list[Event] = []
        for lease_id in found.lease_ids:
            lease = leases.get(c, lease_id)
            notice = Notice(lease_id, now_us, until_us, found.gang.head.lease_id)
            if lease is None or lease.state not in HOLDING or not placements.notify(c, notice):
                raise StaleError(lease_id)
            workload = workloads[lease.workload_id]
            data = {
                "workload_id": lease.workload_id,
                "name": workload.name,
                "until": to_text(until_us),
                "checkpoint": bool(workload.spec.checkpoint_command),
            }
            told.append(Event("lease.reclaim_notice", lease_id, now_us, lease.tenant_id, data=data))
        events.append(c, told)


def withdraw_the_needless(yard: Yard, world: World, open_leases: Sequence[Lease]) -> bool:
    """Takes back notices whose gang waits no more, as long as their lease has not been asked to end yet."""
    by_id = {lease.id: lease for lease in open_leases}
    needless = [notice for notice in world.notices.values() if _is_needless(yard, notice, by_id, world)]
    if not needless:
        return False
    with yard.store.write() as c:
        for notice in needless:
            placements.withdraw(c, notice.lease_id)
        events.append(
            c,
            [
                Event("lease.reclaim_withdrawn", notice.lease_id, world.now.at_us, by_id[notice.lease_id].tenant_id)
                for notice in needless
            ],
        )
    return True


def _is_needless(yard: Yard, notice: Notice, by_id: Mapping[str, Lease], world: World) -> bool:
    lease, waits = by_id.get(notice.lease_id), by_id.get(notice.notice_for)
    if lease is None or lease.workload_id not in world.workloads:
        return False
    begun = notice.until_us - reclaim_grace_us(notice, world.workloads[lease.workload_id])
    if world.now.at_us >= begun:
        return False
    if notice.notice_for == BY_PRICE:
        return not is_outbid(yard, world.workloads[lease.workload_id])
    wanted = waits is not None and waits.state is LeaseState.REQUESTED
    return not (wanted and waits is not None and world.workloads[waits.workload_id].desired is Desired.RUN)
