# ruff: noqa: A005 - named after what it measures
"""The queue and reclaiming: what one decision costs on a large fleet, and a launch in a yard, in CPU time of one core."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from bench.figures import Figure, at_most
from bench.launch_cost import launch_milliseconds
from gpuyard.model.slices import SliceShape
from gpuyard.model.tenants import Share
from gpuyard.model.units import GIB, SHARE_WHOLE_PPM
from gpuyard.placing import find_scheduler
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.cycle import Standing, decide
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import CardView, NodeView, Request, Snapshot
from gpuyard.scheduling.queue import Amount, QueuePolicy, Usage, gangs_of, order
from gpuyard.scheduling.reclaim import ReclaimPolicy, plan_reclaim
from gpuyard.scheduling.running import Running, released

NODES, CARDS = 2000, 8
WHOLE = SliceShape(80 * GIB, SHARE_WHOLE_PPM)
HOUR = 3_600_000_000
ROUNDS = 7


def measure() -> list[Figure]:
    milliseconds, victims = _reclaims()
    how = f"CPU time of one core, worst of {2 * ROUNDS} fleets of {NODES} full nodes, half of them of single cards"
    few, many = (launch_milliseconds(leases) for leases in (100, 2000))
    return [
        at_most("queue.reclaim_64_cards_2k_nodes", max(milliseconds), "ms", 200, "Kueue 40 s (700 victims, 1,300 nodes)",
                f"{how}; gang of 8 x 8 cards, {victims} victims at most, with the yard's own scheduler"),
        at_most("queue.order_10k_gangs", _ordering() * 1000, "ms", 500, "-", "10,000 gangs of 100 tenants put in order"),
        at_most("queue.idle_cycle_1000_cards", _blocked_cycle() * 1000, "ms", 200, "KAI 2.2-2.5 s per cycle (4,000 nodes)",
                "500 gangs wait for a full fleet of 1,000 cards whose leases all have an end"),
        at_most("queue.launch_among_2000_leases", many, "ms", 50, "-",
                "CPU time of one core from the launch until it runs and nothing is left to do; 1,000 cards, SQLite"),
        at_most("queue.launch_2000_against_100", many / few, "times", 5, f"among 100 leases {few:.1f} ms",
                "what twenty times the leases make a launch cost"),
    ]  # fmt: skip


def fleet(nodes: int, free: int = 0) -> Snapshot:
    return Snapshot(1, tuple(
        NodeView(f"n{n:05}", 8_000, 64 * GIB, tuple(
            CardView(f"n{n:05}/{c}", "H100", 80 * GIB, free * 80 * GIB, free * SHARE_WHOLE_PPM) for c in range(CARDS)
        ), rack=f"r{n // 16:04}")
        for n in range(nodes)
    ))  # fmt: skip


SIZES = (1, 1, 1, 1, 2, 2, 4, 8)


def fill(
    snapshot: Snapshot, dice: random.Random, spot_percent: int, sizes: Sequence[int] = SIZES, ends: bool = False
) -> list[Running]:
    """Every card held, by gangs of so many cards."""
    found: list[Running] = []
    cards = [(node.name, card.uuid) for node in snapshot.nodes for card in node.cards]
    number = 0
    while cards:
        size, spot, number = dice.choice(sizes), dice.randrange(100) < spot_percent, number + 1
        mine, cards = cards[:size], cards[size:]
        by_node: dict[str, list[str]] = {}
        for node, uuid in mine:
            by_node.setdefault(node, []).append(uuid)
        for node, uuids in by_node.items():
            found.append(Running(
                f"{number}@{node}", f"g{number}", f"t{number % 50}", node, tuple(uuids), WHOLE, 7000 * len(uuids),
                60 * GIB * len(uuids), spot=spot, started_us=dice.randrange(20 * HOUR),
                ends_us=25 * HOUR + dice.randrange(20 * HOUR) if ends else None,
            ))  # fmt: skip
    return found


def ask(name: str, members: int, count: int, tenant: str = "t") -> list[Request]:
    return [
        Request(f"{name}-{n}", WHOLE, count, None, 60_000, 400 * GIB, name, tenant_id=tenant, priority=1)
        for n in range(members)
    ]


def _reclaims() -> tuple[list[float], int]:
    scheduler = find_scheduler()
    milliseconds, most = [], 0
    for seed in range(2 * ROUNDS):
        snapshot = fleet(NODES)
        running = fill(snapshot, random.Random(seed), 60) if seed % 2 else fill(snapshot, random.Random(seed), 90, [1])
        (gang,) = gangs_of(ask("gang", 8, 8))
        begun = time.process_time()
        found = plan_reclaim(scheduler, snapshot, gang, running, 24 * HOUR, ReclaimPolicy())
        milliseconds.append((time.process_time() - begun) * 1000)
        if found is None or len(found.victims) > 100:
            raise RuntimeError("no room was found for the gang")
        gone = [lease for lease in running if lease.lease_id in set(found.lease_ids)]
        if scheduler.plan(released(snapshot, gone), gang.members, 0).refusals:
            raise RuntimeError("the room that was found does not do")
        most = max(most, len(found.victims))
    return milliseconds, most


def _ordering() -> float:
    requests = [request for n in range(10_000) for request in ask(f"g{n:05}", 1 + n % 3, 1, f"t{n % 100}")]
    gangs, shares = gangs_of(requests), {f"t{n}": Share(weight=1 + n % 5) for n in range(100)}
    capacity = Amount(16_000 * SHARE_WHOLE_PPM, 16_000 * 80 * GIB, 1, 1)
    begun = time.process_time()
    order(gangs, shares, Usage.of(()), capacity, HOUR, QueuePolicy())
    return time.process_time() - begun


def _blocked_cycle() -> float:
    snapshot = fleet(125)
    running = fill(snapshot, random.Random(1), 0, ends=True)
    requests = [request for n in range(500) for request in ask(f"g{n:05}", 1 + n % 3, 1, f"t{n % 100}")]
    begun = time.process_time()
    decide(Gangs(BestFit()), snapshot, requests, Standing(tuple(running)), 24 * HOUR)
    return time.process_time() - begun
