"""What a yard plans with: nothing oversold, every refusal true, every placement with its reasons; near the best there is."""

from __future__ import annotations

import random
from itertools import combinations
from statistics import mean

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.fragmentation_aware import FragmentationAware
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.plan import CardView, NodeView, Request, Snapshot
from gpuyard.scheduling.policies import TERMS, Policy
from gpuyard.scheduling.state import State, Want
from scheduling_days import compiled, engines

GIB = 1 << 30
MEMORY = {"RTX4090": 24 * GIB, "H100": 80 * GIB}


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    nodes = []
    for at in range(draw(st.integers(1, 5))):
        model = draw(st.sampled_from(sorted(MEMORY)))
        cards = []
        for number in range(draw(st.integers(0, 4))):
            free = draw(st.sampled_from([1_000_000, 500_000, 250_000, 0]))
            memory = MEMORY[model]
            cards.append(
                CardView(f"{at}-{number}", model, memory, memory * free // 1_000_000, free, draw(st.integers(0, 5)) > 0)
            )
        node = NodeView(f"n{at}", draw(st.sampled_from([2000, 32000])), 64 * GIB, tuple(cards))
        nodes.append(node)
    return Snapshot(draw(st.integers(0, 9)), tuple(nodes))


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    made = []
    for at in range(draw(st.integers(0, 12))):
        shape = SliceShape(
            draw(st.sampled_from([6, 12, 24, 40])) * GIB, draw(st.sampled_from([100_000, 500_000, 1_000_000]))
        )
        model = draw(st.sampled_from([None, "RTX4090", "H100", "B200"]))
        made.append(Request(f"l{at}", shape, draw(st.sampled_from([1, 1, 2, 4])), model, 1000, GIB))
    return made


@settings(max_examples=60, deadline=None)
@given(snapshots(), requests())
def test_a_plan_never_oversells_and_refuses_only_what_fits_nowhere(snapshot: Snapshot, asked: list[Request]) -> None:
    plan = FragmentationAware(compiled()).plan(snapshot, asked, 0)
    placed = {placement.lease_id: placement for placement in plan.placements}
    refused = {refusal.lease_id: refusal for refusal in plan.refusals}
    assert placed.keys() | refused.keys() == {request.lease_id for request in asked}
    assert not placed.keys() & refused.keys()
    cpu = {node.name: node.cpu_free_milli for node in snapshot.nodes}
    ram = {node.name: node.memory_free_bytes for node in snapshot.nodes}
    cards = {
        card.uuid: [card.memory_free_bytes, card.compute_free_ppm] for node in snapshot.nodes for card in node.cards
    }

    def holds(card: CardView, request: Request) -> bool:
        memory, share = cards[card.uuid]
        fits = memory >= request.shape.memory_bytes and share >= request.shape.compute_ppm
        return card.schedulable and request.card_model in (None, card.model) and fits

    for request in asked:
        if request.lease_id in refused:
            for node in snapshot.nodes:
                room = cpu[node.name] >= request.cpu_milli and ram[node.name] >= request.memory_bytes
                assert not room or sum(holds(card, request) for card in node.cards) < request.count
            assert len(refused[request.lease_id].shortfalls) == len(snapshot.nodes)
            continue
        placement = placed[request.lease_id]
        node = next(node for node in snapshot.nodes if node.name == placement.node)
        chosen = [card for card in node.cards if card.uuid in placement.card_uuids]
        assert len(chosen) == len(set(placement.card_uuids)) == request.count
        assert all(holds(card, request) for card in chosen)
        assert set(placement.terms) == set(TERMS)
        cpu[node.name] -= request.cpu_milli
        ram[node.name] -= request.memory_bytes
        for card in chosen:
            cards[card.uuid][0] -= request.shape.memory_bytes
            cards[card.uuid][1] -= request.shape.compute_ppm


@settings(max_examples=40, deadline=None)
@given(snapshots(), requests())
def test_both_engines_and_every_repetition_give_the_same_plan(snapshot: Snapshot, asked: list[Request]) -> None:
    plans = [FragmentationAware(make).having_seen(asked).plan(snapshot, asked, 0) for make in (*engines(), compiled())]
    assert plans[0] == plans[1] == plans[2]


def test_who_names_no_model_gets_the_smaller_card_while_there_is_one() -> None:
    def node(name: str, model: str) -> NodeView:
        card = CardView(f"{name}-0", model, MEMORY[model], MEMORY[model], 1_000_000)
        return NodeView(name, 64000, 64 * GIB, (card,))

    snapshot = Snapshot(1, (node("a", "H100"), node("b", "RTX4090")))
    shape = SliceShape(20 * GIB, 1_000_000)
    asked = [Request(f"l{at}", shape, 1, None, 1000, GIB) for at in range(3)]
    plan = FragmentationAware(compiled()).plan(snapshot, asked, 0)
    assert [placement.node for placement in plan.placements] == ["b", "a"]
    assert [refusal.lease_id for refusal in plan.refusals] == ["l2"]


def test_a_server_wider_than_the_kernels_tables_is_still_planned_for() -> None:
    cards = tuple(CardView(f"c{at}", "RTX4090", MEMORY["RTX4090"], MEMORY["RTX4090"], 1_000_000) for at in range(40))
    snapshot = Snapshot(1, (NodeView("wide", 640_000, 64 * GIB, cards),))
    request = Request("l", SliceShape(24 * GIB, 1_000_000), 36, None, 1000, GIB)
    assert len(FragmentationAware(compiled()).plan(snapshot, [request], 0).placements[0].card_uuids) == 36


def _optimum(cards: int, shares: tuple[int, ...]) -> int:
    """The most that any subset of these shares fills of so many cards, by trying every one."""
    best = 0
    for size in range(len(shares), 0, -1):
        for subset in combinations(shares, size):
            if best < sum(subset) <= cards * 100 and _packs(sorted(subset, reverse=True), [100] * cards):
                best = sum(subset)
    return best


def _packs(shares: list[int], free: list[int]) -> bool:
    if not shares:
        return True
    for at in {room: at for at, room in enumerate(free)}.values():  # cards with as much left are the same
        if free[at] >= shares[0]:
            rest = [*free[:at], free[at] - shares[0], *free[at + 1 :]]
            if _packs(shares[1:], rest):
                return True
    return False


def _filled(policy: str, cards: int, shares: list[int]) -> int:
    state = State(cards)
    node = state.add_node("n", 100_000, 0)
    for _ in range(cards):
        state.add_card(node, "RTX4090")
    engine = compiled()(state, Policy(policy), 1)
    mix, used = LearntMix(1), 0
    for share in shares:
        want = Want(1000, 0, 1, share * 10_000, 0)
        mix.see(want, engine)
        used += share * (engine.place(engine.class_of(want)) is not None)
    return used


def test_on_tiny_fleets_it_comes_near_the_optimum_that_knows_what_comes() -> None:
    rng = random.Random(7)
    ratios: dict[str, list[float]] = {"gpuyard": [], "binpack-spread": []}
    for _ in range(150):
        cards = rng.randint(1, 3)
        shares = [rng.choice([19, 25, 33, 47, 50, 81, 100]) for _ in range(rng.randint(1, 8))]
        optimum = _optimum(cards, tuple(shares))
        for policy, found in ratios.items():
            used = _filled(policy, cards, shares)
            assert used <= optimum
            found.append(used / optimum)
    assert mean(ratios["gpuyard"]) > 0.9
    assert mean(ratios["gpuyard"]) > mean(ratios["binpack-spread"])
