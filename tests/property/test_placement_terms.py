"""Topology, watts and price as terms of the score: the same in both engines, and nothing at all where they weigh nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.scheduling.engine import EngineMaker
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.policies import TERMS, Policy
from gpuyard.scheduling.state import ModelCosts, State, Want, Where
from scheduling_days import compiled, distances, engines, fleets, wants

NOTHING = {"topology": 0, "watts": 0, "price": 0}
ONLY = dict.fromkeys(TERMS, 0)
WHOLE = Want(cpu_milli=0, memory_bytes=0, slices=1, share_ppm=1_000_000, card_memory_bytes=0)


def _placed(make: EngineMaker, state: State, policy: Policy, asked: list[Want]) -> list[Where | None]:
    engine = make(state, policy, 0)
    mix = LearntMix(state.nodes)
    mix.tell(engine)
    placed: list[Where | None] = []
    for want in asked:
        mix.see(want, engine)
        placed.append(engine.place(engine.class_of(want)))
    return placed


@settings(max_examples=60, deadline=None)
@given(fleets(), st.lists(wants(), min_size=1, max_size=12))
def test_without_weight_a_term_changes_nothing(state: State, asked: list[Want]) -> None:
    bare = replace(state, links={}, costs={})
    for make in engines():
        weightless = _placed(make, state, Policy.weighing(NOTHING), asked)
        assert weightless == _placed(make, bare, Policy("gpuyard"), asked)


@settings(max_examples=60, deadline=None)
@given(
    fleets(), st.lists(wants(), min_size=1, max_size=12), st.fixed_dictionaries({t: st.integers(0, 300) for t in TERMS})
)
def test_both_engines_place_the_same_whatever_the_weights(
    state: State, asked: list[Want], weights: dict[str, int]
) -> None:
    first, second = (_placed(make, state, Policy.weighing(weights), asked) for make in engines())
    assert first == second


def _nested(cards: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Switches of `size` cards below two sockets."""
    half = cards // 2
    return tuple(
        tuple(
            0 if a == b else 333_333 if a // size == b // size else 833_333 if a // half == b // half else 1_000_000
            for b in range(cards)
        )
        for a in range(cards)
    )


def _farthest(cards: tuple[int, ...], table: tuple[tuple[int, ...], ...]) -> int:
    return max(table[a][b] for a, b in combinations(cards, 2))


def _farness(cards: tuple[int, ...], table: tuple[tuple[int, ...], ...]) -> int:
    steps = [table[a][b] for a, b in combinations(cards, 2)]
    return (15 * max(steps) + sum(steps) // len(steps)) // 16


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.sampled_from([1, 2, 4]), st.sets(st.integers(0, 7), max_size=6))
def test_no_set_of_cards_has_a_nearer_farthest_pair_where_distances_are_nested(
    count: int, size: int, busy: set[int]
) -> None:
    state = State(8)
    node = state.add_node("n", 64_000, 1 << 30)
    for card in range(8):
        state.add_card(node, "H100", share_free_ppm=0 if card in busy else 1_000_000)
    state.links[node] = _nested(8, size)
    free = [card for card in range(8) if card not in busy]
    for make in engines():
        engine = make(state, Policy("gpuyard"), 0)
        LearntMix(1).tell(engine)
        seen = engine.look(engine.class_of(WHOLE._replace(slices=count)), node)
        if len(free) < count:
            assert seen is None
            continue
        assert seen is not None
        best = min(_farthest(cards, state.links[node]) for cards in combinations(free, count))
        assert _farthest(seen.where.cards, state.links[node]) == best
        assert seen.terms["topology"] == _farness(seen.where.cards, state.links[node])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_node_with_near_cards_is_taken_where_the_way_counts(data: st.DataObject) -> None:
    state = State(4)
    for name in ("far", "near"):
        node = state.add_node(name, 64_000, 1 << 30)
        for _ in range(4):
            state.add_card(node, "H100")
    state.links[0] = data.draw(
        distances(4).filter(lambda table: min(min(row[:a] + row[a + 1 :]) for a, row in enumerate(table)) > 200_000)
    )
    state.links[1] = tuple(tuple(0 if a == b else 136_666 for b in range(4)) for a in range(4))
    pair = WHOLE._replace(slices=2)
    assert _placed(compiled(), state, Policy.weighing({**ONLY, "topology": 1}), [pair])[0] == Where(1, (0, 1))
    # Where it does not, the first of equals is.
    assert _placed(compiled(), state, Policy.weighing(NOTHING), [pair])[0] == Where(0, (0, 1))


def _two_models() -> State:
    state = State(2)
    for name, model in (("a", "DEAR"), ("b", "CHEAP")):
        node = state.add_node(name, 64_000, 1 << 30)
        for _ in range(2):
            state.add_card(node, model, 24)
    state.costs = {"DEAR": ModelCosts(900_000, 100_000, 1_000_000), "CHEAP": ModelCosts(300_000, 40_000, 250_000)}
    return state


def test_power_and_price_are_told_and_weighed() -> None:
    state = _two_models()
    half = WHOLE._replace(share_ppm=500_000, card_memory_bytes=18)
    for make in engines():
        engine = make(state, Policy("gpuyard"), 0)
        LearntMix(2).tell(engine)
        dear, cheap = (engine.look(engine.class_of(half), node) for node in (0, 1))
        assert dear is not None
        assert cheap is not None
        # Half of a card at work, and both cards of a node that was off; three quarters of the card's memory are paid.
        assert (dear.terms["watts"], dear.terms["price"]) == (450_000 + 200_000, 750_000)
        assert (cheap.terms["watts"], cheap.terms["price"]) == (150_000 + 80_000, 187_500)
        for term in ("watts", "price"):
            assert _placed(make, state, Policy.weighing({**ONLY, term: 1}), [half])[0] == Where(1, (0,))
        assert _placed(make, state, Policy.weighing(ONLY), [half])[0] == Where(0, (0,))


def test_a_node_that_runs_already_adds_no_idle_power() -> None:
    state = _two_models()
    for make in engines():
        engine = make(state, Policy("gpuyard"), 0)
        LearntMix(2).tell(engine)
        class_ = engine.class_of(WHOLE)
        assert engine.take(class_, Where(0, (0,)))
        seen = engine.look(class_, 0)
        assert seen is not None
        assert seen.terms["watts"] == 900_000
