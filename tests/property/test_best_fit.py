"""Placement: whatever is asked of whatever fleet, no card is over, and what is said is true."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.plan import CardView, NodeView, Placement, Refusal, Request, Snapshot

GIB = 1 << 30
models = st.sampled_from(["RTX4090", "H100"])
shapes = st.builds(SliceShape, st.integers(1, 30).map(lambda n: n * GIB), st.integers(1, SHARE_WHOLE_PPM))


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    nodes: list[NodeView] = []
    for n in range(draw(st.integers(0, 3))):
        cards: list[CardView] = []
        for c in range(draw(st.integers(0, 3))):
            total = draw(st.sampled_from([24, 80])) * GIB
            free_memory, free_compute = draw(st.integers(0, total)), draw(st.integers(0, SHARE_WHOLE_PPM))
            usable = draw(st.integers(0, 4)) > 0
            cards.append(CardView(f"GPU-{n}-{c}", draw(models), total, free_memory, free_compute, usable))
        cpu, memory = draw(st.integers(0, 64_000)), draw(st.integers(0, 256)) * GIB
        nodes.append(NodeView(f"node-{n}", cpu, memory, tuple(cards), draw(st.integers(0, 4)) > 0))
    return Snapshot(draw(st.integers(0, 9)), tuple(nodes))


requests = st.lists(
    st.builds(
        lambda shape, count, model, cpu, memory: (shape, count, model, cpu, memory * GIB),
        shapes, st.integers(1, 3), st.none() | models, st.integers(0, 40_000), st.integers(0, 128),
    ),
    max_size=8,
).map(lambda rows: [Request(f"ls-{n}", *row) for n, row in enumerate(rows)])  # fmt: skip


def fits(node: NodeView, cards: tuple[CardView, ...], request: Request) -> bool:
    return (
        node.schedulable
        and node.cpu_free_milli >= request.cpu_milli
        and node.memory_free_bytes >= request.memory_bytes
        and all(card.schedulable and request.card_model in (None, card.model) for card in cards)
        and all(card.memory_free_bytes >= request.shape.memory_bytes for card in cards)
        and all(card.compute_free_ppm >= request.shape.compute_ppm for card in cards)
    )


def taken(snapshot: Snapshot, placements: list[Placement], asked: dict[str, Request]) -> Snapshot:
    """What is left once these are placed, reckoned anew."""
    memory: dict[str, int] = defaultdict(int)
    compute: dict[str, int] = defaultdict(int)
    cpu: dict[str, int] = defaultdict(int)
    ram: dict[str, int] = defaultdict(int)
    for placement in placements:
        request = asked[placement.lease_id]
        cpu[placement.node] += request.cpu_milli
        ram[placement.node] += request.memory_bytes
        for uuid in placement.card_uuids:
            memory[uuid] += request.shape.memory_bytes
            compute[uuid] += request.shape.compute_ppm
    nodes = tuple(
        NodeView(
            node.name,
            node.cpu_free_milli - cpu[node.name],
            node.memory_free_bytes - ram[node.name],
            tuple(
                CardView(
                    card.uuid, card.model, card.memory_bytes, card.memory_free_bytes - memory[card.uuid],
                    card.compute_free_ppm - compute[card.uuid], card.schedulable,
                )
                for card in node.cards
            ),
            node.schedulable,
        )
        for node in snapshot.nodes
    )  # fmt: skip
    return Snapshot(snapshot.version, nodes)


@given(fleets(), requests)
def test_no_card_and_no_node_is_ever_over(snapshot: Snapshot, asked: list[Request]) -> None:
    plan = BestFit().plan(snapshot, asked, 0)
    left = taken(snapshot, list(plan.placements), {request.lease_id: request for request in asked})
    for node in left.nodes:
        assert node.cpu_free_milli >= 0
        assert node.memory_free_bytes >= 0
        for card in node.cards:
            assert card.memory_free_bytes >= 0
            assert card.compute_free_ppm >= 0


@given(fleets(), requests)
def test_each_request_is_placed_whole_on_usable_cards_of_one_node_or_refused(
    snapshot: Snapshot, asked: list[Request]
) -> None:
    plan = BestFit().plan(snapshot, asked, 0)
    told = [placement.lease_id for placement in plan.placements] + [refusal.lease_id for refusal in plan.refusals]
    assert sorted(told) == sorted(request.lease_id for request in asked)
    nodes = {node.name: node for node in snapshot.nodes}
    by_id = {request.lease_id: request for request in asked}
    for placement in plan.placements:
        request = by_id[placement.lease_id]
        assert len(set(placement.card_uuids)) == request.count
        chosen = [card for card in nodes[placement.node].cards if card.uuid in placement.card_uuids]
        assert len(chosen) == request.count
        assert fits(nodes[placement.node], tuple(chosen), request)


@given(fleets(), requests)
def test_what_is_refused_fits_nowhere_when_every_choice_of_cards_is_tried(
    snapshot: Snapshot, asked: list[Request]
) -> None:
    plan = BestFit().plan(snapshot, asked, 0)
    by_id = {request.lease_id: request for request in asked}
    order = {request.lease_id: n for n, request in enumerate(asked)}
    for refusal in plan.refusals:
        before = [p for p in plan.placements if order[p.lease_id] < order[refusal.lease_id]]
        left = taken(snapshot, before, by_id)
        request = by_id[refusal.lease_id]
        for node in left.nodes:
            assert not any(fits(node, cards, request) for cards in combinations(node.cards, request.count))
        assert [shortfall.node for shortfall in refusal.shortfalls] == [node.name for node in snapshot.nodes]


def free_after(snapshot: Snapshot, refusal: Refusal, request: Request) -> bool:
    assert refusal.largest_fit is not None
    smaller = Request("ls-x", refusal.largest_fit, request.count, request.card_model, 0, 0)
    return any(
        node.schedulable and any(fits(node, cards, smaller) for cards in combinations(node.cards, request.count))
        for node in snapshot.nodes
    )


@given(fleets(), requests.filter(bool))
def test_what_a_refusal_says_would_fit_does_fit(snapshot: Snapshot, asked: list[Request]) -> None:
    plan = BestFit().plan(snapshot, asked[:1], 0)
    for refusal in plan.refusals:
        if refusal.largest_fit is not None:
            assert free_after(snapshot, refusal, asked[0])


@given(fleets(), requests)
def test_the_same_question_has_the_same_answer(snapshot: Snapshot, asked: list[Request]) -> None:
    assert BestFit().plan(snapshot, asked, 0) == BestFit().plan(snapshot, asked, 10**15)


def test_the_card_that_is_left_with_least_is_chosen() -> None:
    roomy = CardView("GPU-a", "RTX4090", 24 * GIB, 24 * GIB, SHARE_WHOLE_PPM)
    tight = CardView("GPU-b", "RTX4090", 24 * GIB, 6 * GIB, 250_000)
    node = NodeView("node-0", 64_000, 256 * GIB, (roomy, tight))
    quarter = Request("ls-0", SliceShape(6 * GIB, 250_000), 1, None, 0, 0)
    plan = BestFit().plan(Snapshot(1, (node,)), [quarter], 0)
    assert plan.placements[0].card_uuids == ("GPU-b",)
