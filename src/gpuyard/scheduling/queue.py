"""Who is next: quotas with borrowing, weighted dominant-resource fairness, priority tiers and ageing. Pure.

Spot comes last, and waits without a bound. Among the others the order is, from the most to the least telling: gangs
that have waited past the bound, oldest first; then those whose tenant stays within its quota; then the higher tier,
which rises by one for each `age_us` of waiting; then the tenant with the smaller weighted dominant share; then who came
first. A tenant's share grows with each of its gangs that is put in the order, so that a burst of one tenant does not go
before the first gang of another.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.model.tenants import Share
from gpuyard.model.units import HOUR_US, SECOND_US, SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import Request, Snapshot
from gpuyard.scheduling.running import Running

SHARE_SCALE: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How long waiting takes to count, and how much one cycle may do."""

    age_us: int = 600 * SECOND_US  # of waiting that lift a gang by one tier
    starve_us: int = HOUR_US  # the bound: past it nothing that came later goes before a gang
    gangs_a_cycle: int = 256
    reservations: int = 4  # gangs for which room is kept at once


DEFAULT_SHARE: Final = Share()


@dataclass(frozen=True, slots=True)
class Amount:
    """What is asked for or held, in every dimension that fairness looks at."""

    compute_ppm: int = 0
    card_memory_bytes: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.compute_ppm + other.compute_ppm,
            self.card_memory_bytes + other.card_memory_bytes,
            self.cpu_milli + other.cpu_milli,
            self.memory_bytes + other.memory_bytes,
        )

    def dominant(self, capacity: Amount, weight: int) -> int:
        """The largest share of any dimension, over the weight, in billionths."""
        pairs = (
            (self.compute_ppm, capacity.compute_ppm),
            (self.card_memory_bytes, capacity.card_memory_bytes),
            (self.cpu_milli, capacity.cpu_milli),
            (self.memory_bytes, capacity.memory_bytes),
        )
        return (
            max(used * SHARE_SCALE // (whole * weight) for used, whole in pairs if whole)
            if any(whole for _, whole in pairs)
            else 0
        )


@dataclass(frozen=True, slots=True)
class Gang:
    """Requests that are placed together: those of one group, or one alone."""

    id: str
    members: tuple[Request, ...]

    @property
    def head(self) -> Request:
        """A member: what the gang as a whole is, each of them is."""
        return self.members[0]

    @property
    def amount(self) -> Amount:
        """What all members ask for."""
        return Amount(
            sum(m.shape.compute_ppm * m.count for m in self.members),
            sum(m.shape.memory_bytes * m.count for m in self.members),
            sum(m.cpu_milli for m in self.members),
            sum(m.memory_bytes for m in self.members),
        )


def gangs_of(requests: Iterable[Request]) -> list[Gang]:
    """Requests by group, in the order of each group's first."""
    found: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        found[request.group or request.lease_id].append(request)
    return [Gang(name, tuple(members)) for name, members in found.items()]


@dataclass(slots=True)
class Usage:
    """What each tenant holds: all of it, and the part that counts against its quota."""

    held: dict[str, Amount]
    quota: dict[str, Amount]

    @classmethod
    def of(cls, running: Iterable[Running]) -> Usage:
        """What running leases hold."""
        sums: dict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for lease in running:
            cards, held = len(lease.card_uuids), sums[lease.tenant_id, lease.spot]
            held[0] += lease.shape.compute_ppm * cards
            held[1] += lease.shape.memory_bytes * cards
            held[2] += lease.cpu_milli
            held[3] += lease.memory_bytes
        usage = cls({}, {})
        for (tenant_id, spot), held in sums.items():
            usage.add(tenant_id, Amount(*held), spot)
        return usage

    def add(self, tenant_id: str, amount: Amount, spot: bool) -> None:
        """The tenant holds this much more."""
        self.held[tenant_id] = self.held.get(tenant_id, Amount()) + amount
        if not spot:
            self.quota[tenant_id] = self.quota.get(tenant_id, Amount()) + amount

    def within(self, share: Share, gang: Gang) -> bool:
        """Whether the tenant would still be within its quota with this gang."""
        if gang.head.spot:
            return True
        after = self.quota.get(gang.head.tenant_id, Amount()) + gang.amount
        return share.holds(after.compute_ppm, after.card_memory_bytes)


def capacity_of(snapshot: Snapshot, running: Iterable[Running]) -> Amount:
    """The whole fleet: what is free and what is held."""
    total = Amount(
        sum(SHARE_WHOLE_PPM for node in snapshot.nodes for _ in node.cards),
        sum(card.memory_bytes for node in snapshot.nodes for card in node.cards),
        sum(max(0, node.cpu_free_milli) for node in snapshot.nodes),
        sum(max(0, node.memory_free_bytes) for node in snapshot.nodes),
    )
    held = list(running)
    return total + Amount(0, 0, sum(r.cpu_milli for r in held), sum(r.memory_bytes for r in held))


def tier(gang: Gang, now_us: int, policy: QueuePolicy) -> int:
    """The gang's priority, risen with its waiting."""
    return gang.head.priority + max(0, now_us - gang.head.created_us) // policy.age_us


def starves(gang: Gang, now_us: int, policy: QueuePolicy) -> bool:
    """Whether it has waited past the bound. Spot takes what is left over and has none."""
    return not gang.head.spot and now_us - gang.head.created_us >= policy.starve_us


def order(
    gangs: Sequence[Gang],
    shares: Mapping[str, Share],
    usage: Usage,
    capacity: Amount,
    now_us: int,
    policy: QueuePolicy,
) -> list[Gang]:
    """The gangs in the order in which they are to be placed. `usage` is left as it was."""
    assumed = Usage(dict(usage.held), dict(usage.quota))
    starving = sorted(
        (gang for gang in gangs if starves(gang, now_us, policy)), key=lambda gang: (gang.head.created_us, gang.id)
    )
    waiting: dict[str, list[Gang]] = defaultdict(list)
    for gang in gangs:
        if not starves(gang, now_us, policy):
            waiting[gang.head.tenant_id].append(gang)
    for mine in waiting.values():  # reversed, so that the next one is popped from the end
        mine.sort(
            key=lambda gang: (gang.head.spot, -tier(gang, now_us, policy), gang.head.created_us, gang.id), reverse=True
        )
    for gang in starving:
        assumed.add(gang.head.tenant_id, gang.amount, gang.head.spot)

    def key(tenant_id: str) -> tuple[bool, bool, int, int, int, str]:
        gang, share = waiting[tenant_id][-1], shares.get(tenant_id, DEFAULT_SHARE)
        dominant = assumed.held.get(tenant_id, Amount()).dominant(capacity, share.weight)
        within = assumed.within(share, gang)
        return (gang.head.spot, not within, -tier(gang, now_us, policy), dominant, gang.head.created_us, gang.id)

    heads = [(key(tenant_id), tenant_id) for tenant_id in waiting]
    heapq.heapify(heads)
    found = starving
    while heads:
        _, tenant_id = heapq.heappop(heads)
        gang = waiting[tenant_id].pop()
        found.append(gang)
        assumed.add(tenant_id, gang.amount, gang.head.spot)
        if waiting[tenant_id]:
            heapq.heappush(heads, (key(tenant_id), tenant_id))
    return found
