"""Random days on random fleets: nothing is ever oversold, and both engines say the same, every time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.scheduling.engine import Engine, Typical
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.policies import NAMES, Policy
from gpuyard.scheduling.state import EXCLUSIVE, State, Want, Where
from scheduling_days import compiled, engines, fleets, wants

days = st.lists(st.tuples(wants(), st.booleans()), max_size=40)


def _live(engine: Engine, day: Sequence[tuple[Want, bool]]) -> list[Where | None]:
    """Takes each request in turn; after some of them the oldest lease ends."""
    mix = LearntMix(4)
    if engine.policy.learns:
        mix.tell(engine)
    else:
        engine.set_mix([Typical(want, 1 + at) for at, (want, _) in enumerate(day[:8])], 1)
    held: list[tuple[int, Where]] = []
    outcome: list[Where | None] = []
    for want, ends in day:
        if engine.policy.learns:
            mix.see(want, engine)
        class_ = engine.class_of(want)
        where = engine.place(class_)
        outcome.append(where)
        if where is not None:
            held.append((class_, where))
        if ends and held:
            engine.give(*held.pop(0))
    return outcome


@settings(max_examples=60, deadline=None)
@given(fleets(), days, st.sampled_from(NAMES), st.integers(0, 5))
def test_numpy_and_c_place_every_request_on_the_same_cards(state: State, day, policy: str, seed: int) -> None:
    first, second = (_live(make(state, Policy(policy), seed), day) for make in engines())
    assert first == second


@settings(max_examples=60, deadline=None)
@given(fleets(), days, st.sampled_from(NAMES))
def test_a_day_that_is_lived_again_is_the_same_day(state: State, day, policy: str) -> None:
    make = compiled()
    assert _live(make(state, Policy(policy), 3), day) == _live(make(state, Policy(policy), 3), day)


@settings(max_examples=60, deadline=None)
@given(fleets(), st.lists(wants(), min_size=1, max_size=8))
def test_both_engines_give_the_same_terms_for_every_node(state: State, asked) -> None:
    made = [make(state, Policy("gpuyard"), 0) for make in engines()]
    for engine in made:
        LearntMix(4).tell(engine)
        engine.set_mix([Typical(want, 3) for want in asked], 7000)
        engine.set_tiers([0, 400_000])
    for want in asked:
        looks = [[engine.look(engine.class_of(want), node) for node in range(state.nodes)] for engine in made]
        assert looks[0] == looks[1]
        made[0].place(made[0].class_of(want))
        made[1].place(made[1].class_of(want))


@settings(max_examples=60, deadline=None)
@given(fleets(), days, st.sampled_from(NAMES))
def test_no_card_and_no_node_is_ever_oversold_and_a_refusal_is_true(state: State, day, policy: str) -> None:
    engine = compiled()(state, Policy(policy), 0)
    engine.set_mix([Typical(want, 1) for want, _ in day[:4]], 5000)
    book = _Book(state)
    held: list[tuple[Want, Where]] = []
    for want, ends in day:
        where = engine.place(engine.class_of(want))
        if where is None:
            assert not any(book.fits(want, node) for node in range(state.nodes)), want
        else:
            book.take(want, where)
            held.append((want, where))
        if ends and held:
            want, where = held.pop(0)
            engine.give(engine.class_of(want), where)
            book.give(want, where)
    for want, where in held:
        engine.give(engine.class_of(want), where)
        book.give(want, where)
    fresh = compiled()(state, Policy(policy), 0)
    assert [engine.free(node) for node in range(state.nodes)] == [fresh.free(node) for node in range(state.nodes)]


class _Book:
    """Counts by itself what is free."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.cpu, self.memory = list(state.cpu_free_milli), list(state.memory_free_bytes)
        self.share, self.room = list(state.share_free_ppm), list(state.card_memory_free_bytes)
        self.modes: dict[int, list[int]] = {}

    def fits(self, want: Want, node: int) -> bool:
        if self.cpu[node] < want.cpu_milli or self.memory[node] < want.memory_bytes:
            return False
        return sum(self._holds(want, node, card) for card in range(self.state.cards[node])) >= want.slices

    def _holds(self, want: Want, node: int, card: int) -> bool:
        at = node * self.state.width + card
        same_mode = all(mode == want.mode != EXCLUSIVE for mode in self.modes.get(at, []))
        fits = self.share[at] >= want.share_ppm and self.room[at] >= want.card_memory_bytes
        return fits and same_mode and bool(want.models >> self.state.model[at] & 1)

    def take(self, want: Want, where: Where) -> None:
        assert len(set(where.cards)) == want.slices
        assert all(self._holds(want, where.node, card) for card in where.cards)
        self.cpu[where.node] -= want.cpu_milli
        self.memory[where.node] -= want.memory_bytes
        for card in where.cards:
            at = where.node * self.state.width + card
            self.share[at] -= want.share_ppm
            self.room[at] -= want.card_memory_bytes
            self.modes.setdefault(at, []).append(want.mode)
        assert min(self.cpu[where.node], self.memory[where.node], *self.share, *self.room) >= 0

    def give(self, want: Want, where: Where) -> None:
        self.cpu[where.node] += want.cpu_milli
        self.memory[where.node] += want.memory_bytes
        for card in where.cards:
            at = where.node * self.state.width + card
            self.share[at] += want.share_ppm
            self.room[at] += want.card_memory_bytes
            self.modes[at].remove(want.mode)


@settings(max_examples=30, deadline=None)
@given(fleets(), wants())
def test_taking_what_does_not_fit_changes_nothing(state: State, want: Want) -> None:
    for make in engines():
        engine = make(state, Policy("gpuyard"), 0)
        before = [engine.free(node) for node in range(state.nodes)]
        class_ = engine.class_of(want._replace(share_ppm=1_000_001, slices=1))
        assert not engine.take(class_, Where(0, (0,)))
        assert not engine.take(engine.class_of(want._replace(slices=2)), Where(0, (0, 0)))
        assert [engine.free(node) for node in range(state.nodes)] == before
