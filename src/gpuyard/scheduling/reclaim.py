"""Which spot leases have to go so that a waiting gang can start: whole gangs, the least work lost, a place that is
usable. Pure.

Freed cards are worth something only where the waiting gang can use them: `count` of them on one node, with processors
and memory, and for several members in one rack where any rack can take them all. So places are compared by what it
costs to clear them, never leases by themselves. Work lost is cards x time since it was last safe, and the time that a
restart takes.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpuyard.model.units import SECOND_US, SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import CardView, NodeView, Request, Scheduler, Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.running import Running
from gpuyard.scheduling.sparing import spare

MAX_VICTIMS: Final = 100
MAX_TRIED: Final = 32  # gangs in all, up to which letting all of them go and sparing one by one is quick enough
MAX_RACKS: Final = 8  # that are tried before the gang may be spread over several


@dataclass(frozen=True, slots=True)
class ReclaimPolicy:
    """What spot leases can count on: the notice, the time that they run at least before they get one, and the pause
    after one. `restart_us` is what starting again costs, as work lost."""

    notice_us: int = 120 * SECOND_US
    minimum_run_us: int = 600 * SECOND_US
    cooldown_us: int = 1800 * SECOND_US
    restart_us: int = 60 * SECOND_US
    max_victims: int = MAX_VICTIMS


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The gangs that are to go for `gang`, all of their leases, and the work lost in card-microseconds."""

    gang: Gang
    victims: tuple[str, ...]
    lease_ids: tuple[str, ...]
    lost_card_us: int


@dataclass(frozen=True, slots=True)
class _Victim:
    gang: str
    leases: tuple[Running, ...]
    cost: int


def plan_reclaim(
    scheduler: Scheduler,
    snapshot: Snapshot,
    gang: Gang,
    running: Sequence[Running],
    now_us: int,
    policy: ReclaimPolicy,
) -> Reclaim | None:
    """The cheapest way found to let the gang start; None where it starts as it is, or where no allowed set of
    victims would let it. Bounded: every node is
    looked at a few times, whatever runs on it."""
    victims = _victims(running, now_us, policy)
    if not victims or gang.head.spot:
        return None
    on_nodes = _on_nodes(victims.values())
    for nodes in _places(snapshot, gang):
        found = _Clearing(nodes, victims, on_nodes, gang.members, policy.max_victims).search()
        if found is None:
            continue
        chosen, used = found
        # Gangs that go leave other nodes too, on which one of the others may turn out not to be in the way.
        freed = used | {lease.node for name in chosen for lease in victims[name].leases}
        chosen = _needed(scheduler, _only(snapshot, freed), gang, chosen, victims, now_us)
        if chosen is not None:
            return _reclaim(gang, chosen, victims)
    if len(victims) <= MAX_TRIED:  # places that only the scheduler's own order of packing finds
        chosen = _needed(scheduler, snapshot, gang, list(victims), victims, now_us)
        if chosen is not None and len(chosen) <= policy.max_victims:
            return _reclaim(gang, chosen, victims)
    return None


def _reclaim(gang: Gang, chosen: Sequence[str], victims: Mapping[str, _Victim]) -> Reclaim | None:
    if not chosen:
        return None
    leases = tuple(lease.lease_id for name in chosen for lease in victims[name].leases)
    return Reclaim(gang, tuple(chosen), leases, sum(victims[name].cost for name in chosen))


def _victims(running: Sequence[Running], now_us: int, policy: ReclaimPolicy) -> dict[str, _Victim]:
    """Gangs that may be reclaimed: every lease of theirs is spot, ran long enough, and was left alone long enough."""
    gangs: dict[str, list[Running]] = defaultdict(list)
    for lease in running:
        gangs[lease.gang].append(lease)
    return {
        name: _Victim(name, tuple(leases), sum(_lost(lease, now_us, policy) for lease in leases))
        for name, leases in gangs.items()
        if all(_may_go(lease, now_us, policy) for lease in leases)
    }


def _on_nodes(victims: Iterable[_Victim]) -> Mapping[str, Sequence[Running]]:
    found: dict[str, list[Running]] = defaultdict(list)
    for victim in victims:
        for lease in victim.leases:
            found[lease.node].append(lease)
    return found


def _may_go(lease: Running, now_us: int, policy: ReclaimPolicy) -> bool:
    rested = lease.reclaimed_us is None or now_us - lease.reclaimed_us >= policy.cooldown_us
    return lease.spot and not lease.noticed and now_us - lease.started_us >= policy.minimum_run_us and rested


def _lost(lease: Running, now_us: int, policy: ReclaimPolicy) -> int:
    """Card-microseconds, at least one: nothing is reclaimed for nothing."""
    safe_us = max(lease.started_us, lease.checkpoint_us or 0)
    share_ppm = lease.shape.compute_ppm * len(lease.card_uuids)
    return 1 + share_ppm * (max(0, now_us - safe_us) + policy.restart_us) // SHARE_WHOLE_PPM


def _places(snapshot: Snapshot, gang: Gang) -> Iterable[tuple[NodeView, ...]]:
    """The nodes to look for a place on: by rack for several members, one list of racks; then all of them."""
    usable = [node for node in snapshot.nodes if node.schedulable and _cards(node, gang.head)]
    racks: dict[str, list[NodeView]] = defaultdict(list)
    if len(gang.members) > 1:
        for node in usable:
            if node.rack is not None:
                racks[node.rack].append(node)
    # The rack with most room for such gangs is the likeliest to be cheap; others follow where it cannot be cleared.
    likely = sorted(racks, key=lambda rack: (-_free(racks[rack]), rack))[:MAX_RACKS]
    yield from (tuple(racks[rack]) for rack in likely)
    yield tuple(usable)


def _free(nodes: Sequence[NodeView]) -> int:
    return sum(card.compute_free_ppm for node in nodes for card in node.cards)


def _cards(node: NodeView, request: Request) -> list[CardView]:
    """The node's cards that could hold the request if they were empty; none where there are too few."""
    shape = request.shape
    found = [
        card
        for card in node.cards
        if card.schedulable
        and request.card_model in (None, card.model)
        and card.memory_bytes >= shape.memory_bytes
        and (card.mig is None or request.count == 1)
    ]
    return found if len(found) >= request.count else []


def _only(snapshot: Snapshot, names: set[str]) -> Snapshot:
    return replace(snapshot, nodes=tuple(node for node in snapshot.nodes if node.name in names))


class _Clearing:
    """The search for the cheapest nodes to clear, one member after the other."""

    def __init__(
        self,
        nodes: Sequence[NodeView],
        victims: Mapping[str, _Victim],
        on_nodes: Mapping[str, Sequence[Running]],
        members: Sequence[Request],
        most: int,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.victims, self.members, self.most = victims, members, most
        self.chosen: dict[str, None] = {}  # gangs, in the order in which they were chosen
        self.taken: dict[str, list[tuple[Request, tuple[str, ...]]]] = defaultdict(list)
        self.on_card: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.on_node: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        for name in self.nodes:
            for lease in on_nodes.get(name, ()):
                self._index(lease.gang, lease)

    def _index(self, gang: str, lease: Running) -> None:
        for uuid in lease.card_uuids:
            memory, compute = self.on_card[uuid].get(gang, (0, 0))
            self.on_card[uuid][gang] = (memory + lease.shape.memory_bytes, compute + lease.shape.compute_ppm)
        cpu, memory = self.on_node[lease.node].get(gang, (0, 0))
        self.on_node[lease.node][gang] = (cpu + lease.cpu_milli, memory + lease.memory_bytes)

    def search(self) -> tuple[list[str], set[str]] | None:
        """The gangs to go and the nodes that the members then use; None where it cannot be done."""
        request = self.members[0]
        heap = [(option[0], name) for name in self.nodes if (option := self._option(name, request)) is not None]
        heapq.heapify(heap)
        hosted = 0
        while heap and hosted < len(self.members):
            cost, name = heapq.heappop(heap)
            option = self._option(name, request)
            if option is None:
                continue
            if option[0] != cost and heap and (option[0], name) > heap[0]:
                heapq.heappush(heap, (option[0], name))  # dearer than it was when it was put here: others first
                continue
            _, gangs, cards = option
            self.chosen.update(dict.fromkeys(gangs))
            if len(self.chosen) > self.most:
                return None
            self.taken[name].append((request, cards))
            hosted += 1
            if (again := self._option(name, request)) is not None:
                heapq.heappush(heap, (again[0], name))
        return (list(self.chosen), set(self.taken)) if hosted == len(self.members) else None

    def _option(self, name: str, request: Request) -> tuple[int, tuple[str, ...], tuple[str, ...]] | None:
        """What it costs beyond what was chosen already to host one more member here: cost, gangs, cards."""
        node = self.nodes[name]
        taken = self.taken.get(name, [])
        used: dict[str, int] = defaultdict(int)
        for _, uuids in taken:
            for uuid in uuids:
                used[uuid] += 1
        ranked: list[tuple[int, int, tuple[str, ...], str]] = []
        for place, card in enumerate(_cards(node, request)):
            found = self._clear_card(card, request, used[card.uuid] + 1)
            if found is not None:
                ranked.append((found[0], place, found[1], card.uuid))
        if len(ranked) < request.count:
            return None
        ranked.sort()
        gangs = dict.fromkeys(gang for _, _, needed, _ in ranked[: request.count] for gang in needed)
        if not self._clear_rest(node, request, len(taken) + 1, gangs):
            return None
        cards = tuple(uuid for _, _, _, uuid in ranked[: request.count])
        return sum(self.victims[gang].cost for gang in gangs), tuple(gangs), cards

    def _clear_card(self, card: CardView, request: Request, times: int) -> tuple[int, tuple[str, ...]] | None:
        """The cheapest gangs found whose going lets the card hold the shape `times`, beyond those that go anyhow."""
        here = self.on_card.get(card.uuid, {})
        memory = request.shape.memory_bytes * times - card.memory_free_bytes
        compute = request.shape.compute_ppm * times - card.compute_free_ppm
        for gang in here.keys() & self.chosen.keys():
            memory, compute = memory - here[gang][0], compute - here[gang][1]
        if memory <= 0 and compute <= 0:
            return 0, ()
        if len(here) == 1:  # most cards are held by one: there is nothing to choose from
            ((gang, held),) = here.items()
            enough = gang not in self.chosen and held[0] >= memory and held[1] >= compute
            return (self.victims[gang].cost, (gang,)) if enough else None
        left = [gang for gang in here if gang not in self.chosen]
        single = [gang for gang in left if here[gang][0] >= memory and here[gang][1] >= compute]
        several = _few(sorted(left, key=lambda gang: (self.victims[gang].cost, gang)), here, memory, compute)
        options: list[tuple[int, tuple[str, ...]]] = [(self.victims[gang].cost, (gang,)) for gang in single]
        if several is not None:
            options.append((sum(self.victims[gang].cost for gang in several), several))
        return min(options, default=None)

    def _clear_rest(self, node: NodeView, request: Request, times: int, gangs: dict[str, None]) -> bool:
        """Adds the gangs whose going frees the processors and the memory that are still missing."""
        here = self.on_node.get(node.name, {})
        cpu = request.cpu_milli * times - node.cpu_free_milli
        memory = request.memory_bytes * times - node.memory_free_bytes
        for gang in here:
            if gang in gangs or gang in self.chosen:
                cpu, memory = cpu - here[gang][0], memory - here[gang][1]
        if cpu > 0 or memory > 0:
            left = [gang for gang in here if gang not in gangs and gang not in self.chosen]
            more = _few(sorted(left, key=lambda gang: (self.victims[gang].cost, gang)), here, cpu, memory)
            if more is None:
                return False
            gangs.update(dict.fromkeys(more))
        return True


def _few(
    ordered: Sequence[str], here: Mapping[str, tuple[int, int]], first: int, second: int
) -> tuple[str, ...] | None:
    """The cheapest ones first until enough of both is freed, less those that turn out not to be needed."""
    found: list[str] = []
    for gang in ordered:
        if first <= 0 and second <= 0:
            break
        if (first > 0 and here[gang][0]) or (second > 0 and here[gang][1]):
            found.append(gang)
            first, second = first - here[gang][0], second - here[gang][1]
    if first > 0 or second > 0:
        return None
    for gang in reversed(found.copy()):
        if first + here[gang][0] <= 0 and second + here[gang][1] <= 0:
            found.remove(gang)
            first, second = first + here[gang][0], second + here[gang][1]
    return tuple(found)


def _needed(
    scheduler: Scheduler,
    snapshot: Snapshot,
    gang: Gang,
    chosen: Sequence[str],
    victims: Mapping[str, _Victim],
    now_us: int,
) -> list[str] | None:
    """The victims without which the scheduler itself would not place the gang; None where it would not even with all.
    The dearest is spared first."""
    dearest = sorted(chosen, key=lambda name: (-victims[name].cost, name))
    needed = spare(scheduler, snapshot, gang, dearest, {name: victims[name].leases for name in chosen}, now_us)
    return None if needed is None else [name for name in chosen if name in set(needed)]
