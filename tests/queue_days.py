"""A small fleet on which the queue's decisions are carried out minute by minute, with everything checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpuyard.model.slices import SliceShape
from gpuyard.model.tenants import Share
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.cycle import Decision, Standing, decide
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import CardView, NodeView, Request, Scheduler, Snapshot
from gpuyard.scheduling.queue import DEFAULT_SHARE, QueuePolicy
from gpuyard.scheduling.running import Running, released

GIB = 1 << 30
MINUTE = 60_000_000
WHOLE = SliceShape(24 * GIB, SHARE_WHOLE_PPM)


def fleet(nodes: int = 2, cards: int = 4, model: str = "RTX4090") -> Snapshot:
    return Snapshot(
        0,
        tuple(
            NodeView(
                f"n{n}", 64_000, 512 * GIB,
                tuple(CardView(f"n{n}-{c}", model, 24 * GIB, 24 * GIB, SHARE_WHOLE_PPM) for c in range(cards)),
                rack=f"r{n // 4}",
            )
            for n in range(nodes)
        ),
    )  # fmt: skip


def ask(
    name: str,
    members: int = 1,
    count: int = 1,
    shape: SliceShape = WHOLE,
    tenant: str = "a",
    priority: int = 0,
    spot: bool = False,
    at_us: int = 0,
    limit_us: int | None = None,
) -> list[Request]:
    group = name if members > 1 else None
    return [
        Request(
            f"{name}-{n}", shape, count, None, 100, GIB, group, tenant_id=tenant, priority=priority, spot=spot,
            created_us=at_us, time_limit_us=limit_us,
        )
        for n in range(members)
    ]  # fmt: skip


def hold(request: Request, node: str, cards: Sequence[str], now_us: int) -> Running:
    ends = None if request.time_limit_us is None else now_us + request.time_limit_us
    return Running(
        request.lease_id, request.group or request.lease_id, request.tenant_id, node, tuple(cards), request.shape,
        request.cpu_milli, request.memory_bytes, request.priority, request.spot, started_us=now_us, ends_us=ends,
    )  # fmt: skip


@dataclass
class Days:
    """The fleet, who runs and who waits. `tick` decides, applies and checks."""

    empty: Snapshot
    shares: Mapping[str, Share] = field(default_factory=dict)
    policy: QueuePolicy = field(default_factory=QueuePolicy)
    spot_room_ppm: Mapping[str, int] = field(default_factory=dict)
    now_us: int = 0
    waiting: list[Request] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)
    scheduler: Scheduler = field(default_factory=lambda: Gangs(BestFit()))

    def free(self) -> Snapshot:
        gone = released(self.empty, self.running)  # adds; what is held is twice the free less this
        nodes = {}
        for before, after in zip(self.empty.nodes, gone.nodes, strict=True):
            cards = tuple(
                CardView(
                    b.uuid, b.model, b.memory_bytes, 2 * b.memory_free_bytes - a.memory_free_bytes,
                    2 * b.compute_free_ppm - a.compute_free_ppm, b.schedulable,
                )
                for b, a in zip(before.cards, after.cards, strict=True)
            )  # fmt: skip
            cpu = 2 * before.cpu_free_milli - after.cpu_free_milli
            memory = 2 * before.memory_free_bytes - after.memory_free_bytes
            nodes[before.name] = NodeView(before.name, cpu, memory, cards, rack=before.rack)
        return self.empty.with_nodes(nodes)

    def standing(self) -> Standing:
        return Standing(tuple(self.running), self.shares, self.spot_room_ppm, policy=self.policy)

    def tick(self, minutes: int = 1) -> Decision:
        self.now_us += minutes * MINUTE
        self.running = [lease for lease in self.running if lease.ends_us is None or lease.ends_us > self.now_us]
        snapshot, standing = self.free(), self.standing()
        decision = decide(self.scheduler, snapshot, self.waiting, standing, self.now_us)
        assert decision == decide(self.scheduler, snapshot, list(self.waiting), standing, self.now_us)
        placed = {placement.lease_id: placement for placement in decision.plan.placements}
        refused = [refusal.lease_id for refusal in decision.plan.refusals]
        assert sorted([*placed, *refused]) == sorted(request.lease_id for request in self.waiting)
        sizes: dict[str, list[bool]] = defaultdict(list)
        for request in self.waiting:
            sizes[request.group or request.lease_id].append(request.lease_id in placed)
        assert all(len(set(members)) == 1 for members in sizes.values()), "a gang is whole or absent"
        for request in [request for request in self.waiting if request.lease_id in placed]:
            placement = placed[request.lease_id]
            self.waiting.remove(request)
            self.started[request.lease_id] = self.now_us
            self.running.append(hold(request, placement.node, placement.card_uuids, self.now_us))
        self.check()
        return decision

    def check(self) -> None:
        for node in self.free().nodes:
            assert node.cpu_free_milli >= 0
            assert node.memory_free_bytes >= 0
            assert all(card.memory_free_bytes >= 0 for card in node.cards), "never over in memory"
            assert all(card.compute_free_ppm >= 0 for card in node.cards), "never over in compute"
        for tenant in {lease.tenant_id for lease in self.running}:
            share = self.shares.get(tenant, DEFAULT_SHARE)
            held = sum(r.shape.compute_ppm * len(r.card_uuids) for r in self.running if self.counts(r, tenant))
            memory = sum(r.shape.memory_bytes * len(r.card_uuids) for r in self.running if self.counts(r, tenant))
            assert share.may_borrow or share.holds(held, memory), f"{tenant} is over its quota"

    @staticmethod
    def counts(lease: Running, tenant: str) -> bool:
        return lease.tenant_id == tenant and not lease.spot
