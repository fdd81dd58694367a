"""Moves of running leases, on random fleets: bounded, whole, and true to what fits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.scheduling.engine import Engine
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.moves import Holding, Holdings, MoveBudget, consolidate, make_room
from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.state import State, Want
from scheduling_days import compiled, fleets, wants


def _running(state: State, asked: list[Want], movable: bool = True) -> tuple[Engine, Holdings]:
    engine = compiled()(state, Policy("gpuyard"), 0)
    LearntMix(4).tell(engine)
    holdings = Holdings(state)
    for lease, want in enumerate(asked):
        class_ = engine.class_of(want)
        if (where := engine.place(class_)) is not None:
            holdings.add(lease, Holding(want, class_, where, movable))
    return engine, holdings


def _replayed(state: State, holdings: Holdings) -> Engine:
    """An engine that was told of these holdings alone: none of them may overlap."""
    fresh = compiled()(state, Policy("gpuyard"), 0)
    for holding in holdings.leases.values():
        assert fresh.take(fresh.class_of(holding.want), holding.where)
    return fresh


def _free(engine: Engine, state: State) -> list[object]:
    return [engine.free(node) for node in range(state.nodes)]


@settings(max_examples=60, deadline=None)
@given(fleets(), st.lists(wants(), max_size=14), wants(), st.integers(1, 6))
def test_room_is_made_within_the_budget_or_nothing_is_changed(state: State, asked, want: Want, most: int) -> None:
    engine, holdings = _running(state, asked)
    before = _free(engine, state)
    room = make_room(engine, holdings, want, MoveBudget(most, 10))
    if room is None:
        assert _free(engine, state) == before
        return
    assert 0 < len(room.moves) <= most
    for move in room.moves:
        assert holdings.leases[move.lease].where == move.start
        holdings.moved(move)
    fresh = _replayed(state, holdings)
    assert fresh.take(fresh.class_of(want), room.where)
    assert _free(fresh, state) == _free(engine, state)


@settings(max_examples=40, deadline=None)
@given(fleets(), st.lists(wants(), max_size=14), st.data())
def test_consolidation_leaves_more_nodes_empty_and_keeps_its_budget(state: State, asked, data) -> None:
    engine, holdings = _running(state, asked)
    for lease in list(holdings.leases):
        if data.draw(st.booleans()):
            gone = holdings.drop(lease)
            engine.give(gone.class_, gone.where)
    empty = {node for node in range(state.nodes) if not holdings.on[node]}
    moves = consolidate(engine, holdings, 5, MoveBudget())
    assert len(moves) <= 5
    assert holdings.empty_nodes >= len(empty) + (1 if moves else 0)
    assert _free(_replayed(state, holdings), state) == _free(engine, state)


@settings(max_examples=60, deadline=None)
@given(fleets(), st.lists(wants(), max_size=14), wants())
def test_what_may_not_be_moved_stays(state: State, asked, want: Want) -> None:
    engine, holdings = _running(state, asked, movable=False)
    assert make_room(engine, holdings, want, MoveBudget()) is None
    assert consolidate(engine, holdings, 5, MoveBudget()) == []
