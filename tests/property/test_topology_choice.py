"""Near cards and gangs: the best set of cards against trying all of them; a gang is whole or absent."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.model.topology import Link, Topology
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import CardView, NodeView, Request, Snapshot
from gpuyard.scheduling.topology import EXACT_CARDS, closest, distances, near_cpus, worst_link

GIB = 1 << 30
LINKS = ["NV18", "NV4", "NV2", "NV1", "XGMI", "PIX", "PXB", "PHB", "NODE", "SYS", "?"]


@st.composite
def topologies(draw: st.DrawFn, most: int = 8) -> Topology:
    size = draw(st.integers(1, most))
    drawn = {(a, b): Link.parse(draw(st.sampled_from(LINKS))) for a in range(size) for b in range(a + 1, size)}
    own = Link.parse("X")
    links = tuple(tuple(own if a == b else drawn[min(a, b), max(a, b)] for b in range(size)) for a in range(size))
    names = tuple(f"0000:{n:02x}:00.0" for n in range(size))
    return Topology(names, links, tuple(f"{n // 4}" for n in range(size)), (None,) * size)  # type: ignore[arg-type]


def rank(chosen: tuple[int, ...], between: tuple[tuple[int, ...], ...]) -> tuple[int, int, tuple[int, ...]]:
    pairs = [between[a][b] for a, b in combinations(chosen, 2)]
    return max(pairs, default=0), sum(pairs), chosen


@settings(max_examples=150, deadline=None)
@given(topology=topologies(), count=st.integers(1, 9), data=st.data())
def test_no_other_set_of_cards_is_nearer(topology: Topology, count: int, data: st.DataObject) -> None:
    free = data.draw(st.sets(st.integers(0, len(topology.devices) - 1)))
    between = distances(topology)
    chosen = closest(sorted(free), count, between)
    everything = list(combinations(sorted(free), count))
    if not everything:
        assert chosen is None
        return
    assert chosen == min(everything, key=lambda cards: rank(cards, between))


def test_sixteen_cards_in_islands_are_chosen_exactly_and_at_once() -> None:
    own, near, far = Link.parse("X"), Link.parse("NV2"), Link.parse("SYS")
    links = tuple(tuple(own if a == b else near if a % 4 == b % 4 else far for b in range(16)) for a in range(16))
    topology = Topology(tuple(map(str, range(16))), links, (None,) * 16, (None,) * 16)  # type: ignore[arg-type]
    between = distances(topology)
    assert closest(range(1, 16), 4, between) == (1, 5, 9, 13)
    assert rank(closest(range(16), 8, between) or (), between)[0] == 600


def test_beyond_sixteen_cards_islands_are_still_found() -> None:
    size = 2 * EXACT_CARDS
    own, near, far = Link.parse("X"), Link.parse("NV18"), Link.parse("SYS")
    links = tuple(tuple(own if a == b else near if a // 8 == b // 8 else far for b in range(size)) for a in range(size))
    topology = Topology(tuple(map(str, range(size))), links, (None,) * size, (None,) * size)  # type: ignore[arg-type]
    assert closest([0, *range(9, size)], 8, distances(topology)) == tuple(range(16, 24))


def view(node: str, topology: Topology | None, free: set[int], rack: str | None = None, cards: int = 4) -> NodeView:
    return NodeView(
        node,
        64_000,
        512 * GIB,
        tuple(
            CardView(
                f"{node}-{n}", "H100", 80 * GIB, (80 if n in free else 0) * GIB,
                SHARE_WHOLE_PPM if n in free else 0, pci_address=f"0000:{n:02x}:00.0",
            )
            for n in range(cards)
        ),
        rack=rack,
        topology=topology,
    )  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    nodes: list[NodeView] = []
    for n in range(draw(st.integers(1, 5))):
        topology = draw(topologies(4))
        size = len(topology.devices)
        free = draw(st.sets(st.integers(0, size - 1)))
        nodes.append(view(f"n{n}", topology, free, draw(st.sampled_from([None, "r1", "r2"])), size))
    return Snapshot(1, tuple(nodes))


@st.composite
def asked(draw: st.DrawFn) -> list[Request]:
    found: list[Request] = []
    for gang in range(draw(st.integers(1, 4))):
        members, count = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        shape = SliceShape(draw(st.sampled_from([80, 40, 20])) * GIB, draw(st.sampled_from([1, 2, 4])) * 250_000)
        group = f"g{gang}" if draw(st.booleans()) else None
        cpu = draw(st.sampled_from([0, 1000, 30_000]))
        found += [Request(f"{gang}-{m}", shape, count, None, cpu, GIB, group) for m in range(members)]
    return found


@settings(max_examples=150, deadline=None)
@given(snapshot=fleets(), requests=asked())
def test_a_gang_is_whole_or_absent_and_no_card_is_over(snapshot: Snapshot, requests: list[Request]) -> None:
    plan = Gangs(BestFit()).plan(snapshot, requests, 0)
    assert plan == Gangs(BestFit()).plan(snapshot, requests, 0)
    placed = {placement.lease_id: placement for placement in plan.placements}
    assert sorted([*placed, *(refusal.lease_id for refusal in plan.refusals)]) == sorted(r.lease_id for r in requests)
    for group, size in Counter(r.group for r in requests if r.group).items():
        assert sum(r.group == group and r.lease_id in placed for r in requests) in (0, size)
    nodes = {node.name: node for node in snapshot.nodes}
    for request in requests:
        if (placement := placed.get(request.lease_id)) is not None:
            assert len(set(placement.card_uuids)) == request.count
            nodes[placement.node] = nodes[placement.node].taking(placement.card_uuids, request)
    for node in nodes.values():
        assert node.cpu_free_milli >= 0
        assert all(card.memory_free_bytes >= 0 and card.compute_free_ppm >= 0 for card in node.cards)


WHOLE = SliceShape(80 * GIB, SHARE_WHOLE_PPM)


def islands_of(*sizes: int) -> Topology:
    of = [island for island, size in enumerate(sizes) for _ in range(size)]
    text = [["X" if a == b else "NV18" if of[a] == of[b] else "SYS" for b in range(len(of))] for a in range(len(of))]
    names = tuple(f"0000:{n:02x}:00.0" for n in range(len(of)))
    links = tuple(tuple(Link.parse(word) for word in row) for row in text)
    return Topology(names, links, tuple(f"{8 * i}-{8 * i + 7}" for i in of), tuple(of))  # type: ignore[arg-type]


def gang(members: int, count: int = 1) -> list[Request]:
    return [Request(f"m{n}", WHOLE, count, None, 1000, GIB, "g") for n in range(members)]


def test_several_cards_go_to_one_island_with_the_processors_beside_it() -> None:
    node = view("n", islands_of(2, 4), {0, 1, 2, 3, 4, 5}, cards=6)
    (placed,) = Gangs(BestFit()).plan(Snapshot(1, (node,)), [Request("a", WHOLE, 3, None, 0, 0)], 0).placements
    assert set(placed.card_uuids) <= {"n-2", "n-3", "n-4", "n-5"}
    assert (placed.cpus, placed.terms["worst_link"], placed.terms["domain"]) == ("8-15", "NV18", "island")
    assert worst_link(node, ("n-0", "n-2")) == "SYS"
    assert near_cpus(node, ("n-0", "n-2")) == "0-15"


def test_a_gang_prefers_a_node_then_a_rack_then_takes_what_there_is() -> None:
    plain = islands_of(1, 1, 1, 1)
    spread = (view("a", plain, {0, 1}, "r1"), view("b", plain, {0, 1}, "r2"), view("c", plain, {0, 1}, "r2"))
    whole = Snapshot(1, (*spread, view("d", plain, {0, 1, 2, 3}, "r3")))
    placed = Gangs(BestFit()).plan(whole, gang(4), 0).placements
    assert {(p.node, p.terms["domain"]) for p in placed} == {("d", "node")}
    placed = Gangs(BestFit()).plan(Snapshot(1, spread), gang(4), 0).placements
    assert {(p.node, p.terms["domain"]) for p in placed} == {("b", "rack"), ("c", "rack")}
    placed = Gangs(BestFit()).plan(Snapshot(1, spread), gang(5), 0).placements
    assert {p.terms["domain"] for p in placed} == {"fleet"}
    refused = Gangs(BestFit()).plan(Snapshot(1, spread), gang(7), 0)
    assert refused.placements == ()
    assert refused.refusals[0].shortfalls[0].params == {"members": 7, "fit": 6}


def test_replicas_on_one_node_are_near_each_other_too() -> None:
    """Four replicas of one card: two switches of two cards on one socket, rather than any four free ones."""
    kinds = {1: "PIX", 2: "NODE"}
    text = [
        ["X" if a == b else kinds[1] if a // 2 == b // 2 else kinds[2] if a // 4 == b // 4 else "SYS" for b in range(8)]
        for a in range(8)
    ]
    names = tuple(f"0000:{n:02x}:00.0" for n in range(8))
    links = tuple(tuple(Link.parse(word) for word in row) for row in text)
    node = view("n", Topology(names, links, ("0",) * 8, (0,) * 8), {0, 2, 4, 5, 6, 7}, cards=8)  # type: ignore[arg-type]
    placed = Gangs(BestFit()).plan(Snapshot(1, (node,)), gang(4), 0).placements
    assert {uuid for p in placed for uuid in p.card_uuids} == {"n-4", "n-5", "n-6", "n-7"}
    pairs = Gangs(BestFit()).plan(Snapshot(1, (node,)), gang(2, 2), 0).placements
    assert {frozenset(p.card_uuids) for p in pairs} == {frozenset({"n-4", "n-5"}), frozenset({"n-6", "n-7"})}
