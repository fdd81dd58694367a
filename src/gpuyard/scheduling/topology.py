"""Which cards of a node belong together: the set whose worst pair is nearest, and the processors beside it. Pure.

A collective is as fast as its slowest link, so a set is judged by its farthest pair first and by the sum of its pairs
second; what is equal goes to the set that comes first. Up to 16 cards the answer is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from gpuyard.model.topology import Link, LinkKind, Topology, format_cpu_list, parse_cpu_list
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import CardView, NodeView

EXACT_CARDS: Final = 16

Distances = tuple[tuple[int, ...], ...]


@lru_cache(maxsize=4096)
def distances(topology: Topology) -> Distances:
    """The distance of every two devices."""
    return tuple(tuple(link.distance for link in row) for row in topology.links)


def closest(candidates: Sequence[int], count: int, between: Distances) -> tuple[int, ...] | None:
    """The `count` of these devices whose farthest pair is nearest, then whose pairs are nearest in sum, then the first
    in order. None where there are not as many. Exact up to EXACT_CARDS candidates, a good set beyond."""
    ordered = tuple(sorted(candidates))
    if count > len(ordered):
        return None
    if count < 2 or len(ordered) == count:
        return ordered[:count]
    if len(ordered) > EXACT_CARDS:
        return _grown(ordered, count, between)
    return _exact(ordered, count, between)


@lru_cache(maxsize=4096)
def _exact(ordered: tuple[int, ...], count: int, between: Distances) -> tuple[int, ...]:
    """The lowest threshold below which `count` devices are all near each other, then the least sum under it."""
    steps = sorted({between[a][b] for a in ordered for b in ordered if a < b})
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if _search(ordered, count, between, steps[middle], first=True) is None:
            low = middle + 1
        else:
            high = middle
    found = _search(ordered, count, between, steps[low], first=False)
    if found is None:
        raise AssertionError("all devices are within the farthest distance of each other")
    return found


def _search(
    ordered: tuple[int, ...], count: int, between: Distances, farthest: int, first: bool
) -> tuple[int, ...] | None:
    """`count` devices with no pair beyond `farthest`: any (`first`), or those with the least sum."""
    near = [
        sum(1 << place for place, other in enumerate(ordered) if between[device][other] <= farthest)
        for device in ordered
    ]
    least = min(between[a][b] for a in ordered for b in ordered if a != b)
    best: list[tuple[int, tuple[int, ...]]] = []

    def grow(chosen: list[int], allowed: int, total: int) -> bool:
        """Adds devices in ascending order, dropping what cannot be better. True once any will do and one is found."""
        missing = count - len(chosen)
        pairs = missing * len(chosen) + missing * (missing - 1) // 2
        if best and total + pairs * least >= best[0][0]:
            return False
        if not missing:
            best[:] = [(total, tuple(ordered[place] for place in chosen))]
            return first
        while allowed.bit_count() >= missing:
            place = (allowed & -allowed).bit_length() - 1
            allowed &= allowed - 1
            added = sum(between[ordered[place]][ordered[other]] for other in chosen)
            if grow([*chosen, place], allowed & near[place], total + added):
                return True
        return False

    grow([], (1 << len(ordered)) - 1, 0)
    return best[0][1] if best else None


def _grown(ordered: tuple[int, ...], count: int, between: Distances) -> tuple[int, ...]:
    """From every device, the nearest one added again and again: count x n steps for each of n starts."""
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for seed in ordered:
        chosen = [seed]
        worst = {other: between[seed][other] for other in ordered if other != seed}
        total, farthest, sums = 0, 0, dict(worst)
        while len(chosen) < count:
            nearest = min(worst, key=lambda other: (worst[other], sums[other], other))
            farthest, total = max(farthest, worst.pop(nearest)), total + sums.pop(nearest)
            chosen.append(nearest)
            for other in worst:
                step = between[nearest][other]
                worst[other] = max(worst[other], step)
                sums[other] += step
        rank = ((farthest, total), tuple(sorted(chosen)))
        if best is None or rank < best:
            best = rank
    return best[1] if best is not None else ()


def choose_cards(node: NodeView, cards: Sequence[CardView], count: int) -> tuple[CardView, ...]:
    """The `count` of these cards of the node that are nearest to each other; the first ones where the node's topology
    is not known. Cards that the topology does not name come last."""
    if node.topology is None or count < 2:
        return tuple(cards[:count])
    place = node.topology.index()
    known = {place[card.pci_address]: card for card in cards if card.pci_address in place}
    chosen = closest(tuple(known), min(count, len(known)), distances(node.topology)) or ()
    found = [known[device] for device in chosen]
    rest = [card for card in cards if card.pci_address not in place]
    return tuple([*found, *rest][:count])


@lru_cache(maxsize=4096)
def _card_distances(topology: Topology, addresses: tuple[str | None, ...]) -> Distances:
    place = topology.index()
    far = Link(LinkKind.UNKNOWN).distance
    between = distances(topology)
    at = [None if address is None else place.get(address) for address in addresses]
    return tuple(
        tuple(
            0
            if one == other
            else (far if a is None or b is None else between[a][b]) * SHARE_WHOLE_PPM // Link(LinkKind.SYS).distance
            for other, b in enumerate(at)
        )
        for one, a in enumerate(at)
    )


def card_distances(node: NodeView) -> Distances:
    """How far its cards are from each other, in their order, in ppm of the way between sockets."""
    if node.topology is None:
        return ()
    return _card_distances(node.topology, tuple(card.pci_address for card in node.cards))


def worst_link(node: NodeView, card_uuids: Sequence[str]) -> str | None:
    """The class of the farthest pair among these cards, as `nvidia-smi topo` writes it; None where it is not known."""
    devices = _devices(node, card_uuids)
    if node.topology is None or devices is None or len(card_uuids) < 2:
        return None
    links = [node.topology.links[a][b] for a in devices for b in devices if a != b]
    return max(links, key=lambda link: link.distance).text


def _devices(node: NodeView, card_uuids: Sequence[str]) -> list[int] | None:
    """The places of these cards in the node's topology; None where it is not known of all of them."""
    if node.topology is None:
        return None
    place = node.topology.index()
    at = [place.get(card.pci_address or "") for card in node.cards if card.uuid in card_uuids]
    return None if None in at else [device for device in at if device is not None]


def farthest(node: NodeView, card_uuids: Sequence[str]) -> int:
    """The distance of the farthest pair among these cards; 0 where it is not known."""
    devices = _devices(node, card_uuids)
    if node.topology is None or devices is None:
        return 0
    between = distances(node.topology)
    return max((between[a][b] for a in devices for b in devices), default=0)


def on_one_island(node: NodeView, card_uuids: Sequence[str]) -> bool:
    """Whether NVLink joins all of these cards, directly or over one another."""
    devices = _devices(node, card_uuids)
    if node.topology is None or devices is None or len(devices) < 2:
        return False
    return any(set(devices) <= set(island) for island in node.topology.islands())


def near_cpus(node: NodeView, card_uuids: Sequence[str]) -> str | None:
    """The processors on the NUMA nodes of these cards, as a Linux CPU list; None where it is not known."""
    if node.topology is None:
        return None
    place = node.topology.index()
    found: frozenset[int] = frozenset()
    for card in node.cards:
        if card.uuid in card_uuids:
            device = place.get(card.pci_address or "")
            cpus = None if device is None else node.topology.cpus[device]
            if cpus is None:
                return None
            found |= parse_cpu_list(cpus)
    return format_cpu_list(found) or None
