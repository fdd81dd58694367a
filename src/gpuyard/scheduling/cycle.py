"""One cycle of the queue: who is next, what fits, for whom room is kept, and what may go in between. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuyard.model.tenants import Share
from gpuyard.scheduling.backfill import Reservation, gone_in_time, reserve, without
from gpuyard.scheduling.plan import NodeView, Placement, Plan, Refusal, Request, Scheduler, Shortfall, Snapshot
from gpuyard.scheduling.queue import (
    DEFAULT_SHARE,
    Amount,
    Gang,
    QueuePolicy,
    Usage,
    capacity_of,
    gangs_of,
    order,
    starves,
)
from gpuyard.scheduling.running import Running
from gpuyard.scheduling.spot_room import SpotRoom


@dataclass(frozen=True, slots=True)
class Standing:
    """All that the queue knows besides the requests: who runs, what tenants may have, and how much spot there may be.

    `spot_room_ppm`: compute that spot leases may take in all, by card model and, under "", of the whole fleet; a model
    that is not named has no limit. `promised`: leases for which others were told to go.
    """

    running: tuple[Running, ...] = ()
    shares: Mapping[str, Share] = field(default_factory=dict[str, Share])
    spot_room_ppm: Mapping[str, int] = field(default_factory=dict[str, int])
    promised: frozenset[str] = frozenset()
    policy: QueuePolicy = field(default_factory=QueuePolicy)


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan, the order in which gangs wait (by gang id), and the room that is kept for some of them."""

    plan: Plan
    waiting: tuple[Gang, ...]
    reservations: tuple[Reservation, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who waits, in the queue's order by workload or lease id, and when those start for whom room is kept."""

    order: tuple[str, ...] = ()
    starts_us: Mapping[str, int | None] = field(default_factory=dict[str, "int | None"])

    @classmethod
    def of(cls, decision: Decision) -> Waiting:
        """What a decision left waiting."""
        starts = {reservation.gang.id: reservation.start_us for reservation in decision.reservations}
        return cls(tuple(gang.id for gang in decision.waiting), starts)


def decide(
    scheduler: Scheduler, snapshot: Snapshot, requests: Sequence[Request], standing: Standing, now_us: int
) -> Decision:
    """Takes the requests in the queue's order and keeps room for the first that cannot start. Never plans more than
    `gangs_a_cycle` gangs; the others are refused as `queued` and come in a later cycle."""
    policy = standing.policy
    usage = Usage.of(standing.running)
    capacity = capacity_of(snapshot, standing.running)
    queue = order(gangs_of(requests), standing.shares, usage, capacity, now_us, policy)
    cycle = _Cycle(scheduler, snapshot, standing, usage, now_us)
    cycle.take(queue[: policy.gangs_a_cycle])
    for gang in queue[policy.gangs_a_cycle :]:
        cycle.hold(gang, "queued", {"ahead": policy.gangs_a_cycle})
    refusals = tuple(found for gang in queue for m in gang.members if (found := cycle.refusals.get(m.lease_id)))
    waiting = tuple(gang for gang in queue if gang.head.lease_id in cycle.refusals)
    plan = Plan(snapshot.version, tuple(cycle.placements), refusals)
    return Decision(plan, waiting, tuple(cycle.reservations))


class _Cycle:
    """What one cycle has placed, refused and reserved so far."""

    def __init__(self, scheduler: Scheduler, snapshot: Snapshot, standing: Standing, usage: Usage, now_us: int) -> None:
        self.scheduler, self.snapshot, self.standing = scheduler, snapshot, standing
        self.usage, self.now_us = usage, now_us
        self.spot = SpotRoom(snapshot, standing.running, standing.spot_room_ppm)
        self.placements: list[Placement] = []
        self.refusals: dict[str, Refusal] = {}
        self.reservations: list[Reservation] = []

    def take(self, queue: Sequence[Gang]) -> None:
        """Everything up to the first gang for which room is kept; then, round that room, what else may go."""
        queue = [gang for gang in queue if self._may(gang)]
        placed, refused = self._plan(queue, self.snapshot)
        blocked = [gang for gang in queue if gang.id not in placed]
        kept = self._reserve(queue, placed, [gang for gang in blocked if refused[gang.head.lease_id].ever])
        first = min((queue.index(reservation.gang) for reservation in kept), default=len(queue))
        self._settle(queue[:first], placed, refused)
        if not kept:
            return
        self.reservations = kept
        reserved = {reservation.gang.id for reservation in kept}
        self._settle([reservation.gang for reservation in kept], {}, refused)
        behind = [gang for gang in queue[first:] if gang.id not in reserved and self._may(gang)]
        self._settle(behind, *self._plan(behind, without(self.snapshot, kept)))
        for gang in behind:
            self._tell_reserved(gang)
        short = [gang for gang in behind if gang.head.lease_id in self.refusals]
        short = [gang for gang in short if gone_in_time(gang, kept, self.now_us) and self._may(gang)]
        self._settle(short, *self._plan(short, self.snapshot))

    def hold(self, gang: Gang, why: str, params: Mapping[str, object]) -> None:
        """The gang is not planned at all; every member is told why."""
        for member in gang.members:
            self.refusals[member.lease_id] = Refusal(member.lease_id, (Shortfall("--", why, params),), None, True)

    def _plan(
        self, queue: Sequence[Gang], seen: Snapshot
    ) -> tuple[dict[str, tuple[Placement, ...]], dict[str, Refusal]]:
        """The placements of each gang that fits, by gang, and the refusals of the members of the others, by lease."""
        if not queue:
            return {}, {}
        plan = self.scheduler.plan(seen, [member for gang in queue for member in gang.members], self.now_us)
        by_lease = {placement.lease_id: placement for placement in plan.placements}
        whole = {
            gang.id: tuple(by_lease[member.lease_id] for member in gang.members)
            for gang in queue
            if all(member.lease_id in by_lease for member in gang.members)
        }
        return whole, {refusal.lease_id: refusal for refusal in plan.refusals}

    def _reserve(
        self, queue: Sequence[Gang], placed: Mapping[str, Sequence[Placement]], blocked: Sequence[Gang]
    ) -> list[Reservation]:
        """Room for the first gangs that do not fit, and for those that others were told to go for."""
        policy, promised = self.standing.policy, self.standing.promised
        seen = self._after(queue, placed)
        first = [gang for gang in blocked if any(member.lease_id in promised for member in gang.members)]
        first += [gang for gang in blocked if gang not in first]
        kept: list[Reservation] = []
        for gang in first[: policy.reservations]:
            open_ended = starves(gang, self.now_us, policy)
            base = without(seen, kept)
            running = self.standing.running
            found = reserve(self.scheduler, base, gang, running, self.now_us, open_ended)
            if found is not None:
                kept.append(found)
        return kept

    def _after(self, queue: Sequence[Gang], placed: Mapping[str, Sequence[Placement]]) -> Snapshot:
        """The fleet once those before the first gang that did not fit have been placed."""
        ahead: list[Gang] = []
        for gang in queue:
            if gang.id not in placed:
                break
            ahead.append(gang)
        return _taken(self.snapshot, ahead, placed)

    def _settle(
        self, gangs: Sequence[Gang], placed: Mapping[str, Sequence[Placement]], refused: Mapping[str, Refusal]
    ) -> None:
        """Accepts what was placed and keeps every limit, and writes the refusals down."""
        accepted: list[Gang] = []
        for gang in gangs:
            if gang.id not in placed:
                self.refusals.update({member.lease_id: refused[member.lease_id] for member in gang.members})
            elif self._may(gang):  # asked once more, with what this plan has added for its tenant
                accepted.append(gang)
                self.placements += placed[gang.id]
                self.usage.add(gang.head.tenant_id, gang.amount, gang.head.spot)
                self.spot.take(gang)
                for member in gang.members:
                    self.refusals.pop(member.lease_id, None)
        self.snapshot = _taken(self.snapshot, accepted, placed)

    def _may(self, gang: Gang) -> bool:
        """Whether quota and spot limit leave room for it; otherwise it is held and told so."""
        share = self.standing.shares.get(gang.head.tenant_id, DEFAULT_SHARE)
        if not share.may_borrow and not self.usage.within(share, gang):
            self.hold(gang, "quota", _quota_params(share, self.usage, gang))
            return False
        if (room := self.spot.lacking(gang)) is not None:
            self.hold(gang, "spot_room", {"room": max(0, room), "wanted": gang.amount.compute_ppm})
            return False
        return True

    def _tell_reserved(self, gang: Gang) -> None:
        """Says that room is kept for another, beside what the nodes lacked."""
        for member in gang.members:
            found = self.refusals.get(member.lease_id)
            if found is not None and found.ever:
                lack = Shortfall("--", "reserved")  # not for whom: that may be another tenant
                self.refusals[member.lease_id] = replace(found, shortfalls=(lack, *found.shortfalls))


def _taken(snapshot: Snapshot, gangs: Sequence[Gang], placed: Mapping[str, Sequence[Placement]]) -> Snapshot:
    nodes = {node.name: node for node in snapshot.nodes} if gangs else {}
    changed: dict[str, NodeView] = {}
    for gang in gangs:
        for member, placement in zip(gang.members, placed[gang.id], strict=True):
            node = changed.get(placement.node, nodes[placement.node])
            changed[placement.node] = node.taking(placement.card_uuids, member, placement.mig)
    return snapshot.with_nodes(changed)


def _quota_params(share: Share, usage: Usage, gang: Gang) -> dict[str, object]:
    held = usage.quota.get(gang.head.tenant_id, Amount())
    return {
        "held": held.compute_ppm,
        "wanted": gang.amount.compute_ppm,
        "quota": share.quota_compute_ppm,
        "held_memory": held.card_memory_bytes,
        "wanted_memory": gang.amount.card_memory_bytes,
        "quota_memory": share.quota_memory_bytes,
    }
