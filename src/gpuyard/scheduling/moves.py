"""Moves of running leases: to make room for a request that fits nowhere, and to empty nodes while load is low.

Pure planning: moves are tried on an engine, a copy of the fleet, and stay there only where the whole set works.
Carrying a move out takes two phases (reserve there, start the copy, cut over, release here) and belongs to the yard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gpuyard.scheduling.engine import Engine
from gpuyard.scheduling.state import EXCLUSIVE, State, Want, Where

# What leases hold by CPU alone counts as this much of a card per core, where the cheaper of two sets is looked for.
_CORE_AS_PPM: Final = 20_000


class Holding(NamedTuple):
    """A lease and what it holds. What may not be moved (no checkpoint, no replica, a disruption budget) says so."""

    want: Want
    class_: int
    where: Where
    movable: bool = True


class Move(NamedTuple):
    """One lease goes from here to there."""

    lease: int
    start: Where
    end: Where


@dataclass(frozen=True, slots=True)
class MoveBudget:
    """`at_once`: how many leases may be moved for one request or to empty one node; `tries`: how many sets are tried on
    the engine before it is given up, which bounds the time."""

    at_once: int = 16
    tries: int = 1000


class Room(NamedTuple):
    """Where a request goes once the moves are made; all of it has been taken on the engine already."""

    where: Where
    moves: tuple[Move, ...]


class _Set(NamedTuple):
    """Leases of one node that would have to go."""

    size: int
    weight: int
    node: int
    leases: tuple[int, ...]


@dataclass(slots=True)
class Holdings:
    """Every lease of a fleet, also by node. Numbers of leases are given by who keeps them."""

    state: State
    leases: dict[int, Holding] = field(default_factory=dict[int, Holding])
    on: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict[int, set[int]](set))

    def add(self, lease: int, holding: Holding) -> None:
        """A lease came, or is elsewhere now."""
        self.leases[lease] = holding
        self.on[holding.where.node].add(lease)

    def drop(self, lease: int) -> Holding:
        """A lease went."""
        holding = self.leases.pop(lease)
        self.on[holding.where.node].discard(lease)
        return holding

    def moved(self, move: Move) -> None:
        """A lease is elsewhere now."""
        self.add(move.lease, self.drop(move.lease)._replace(where=move.end))

    @property
    def empty_nodes(self) -> int:
        """Nodes that nothing runs on."""
        return self.state.nodes - sum(bool(leases) for leases in self.on.values())


def make_room(engine: Engine, holdings: Holdings, want: Want, budget: MoveBudget) -> Room | None:
    """The smallest set of moves after which the request fits, or None. The engine holds the outcome."""
    sets = [found for node in range(holdings.state.nodes) if (found := _set_of(engine, holdings, node, want, budget))]
    sets.sort()
    class_ = engine.class_of(want)
    for chosen in sets[: budget.tries]:
        room = _try(engine, holdings, class_, chosen)
        if room is not None:
            return room
    return None


def _set_of(engine: Engine, holdings: Holdings, node: int, want: Want, budget: MoveBudget) -> _Set | None:
    """The leases of one node that stand in the way: those on its least used cards, then those with most CPU."""
    state = holdings.state
    if not state.open[node] or state.cards[node] < want.slices or state.cpu_total_milli[node] < want.cpu_milli:
        return None
    first = node * state.width
    fitting = [card for card in range(state.cards[node]) if want.models >> state.model[first + card] & 1]
    if len(fitting) < want.slices:
        return None
    on_cards: list[list[int]] = [[] for _ in range(state.cards[node])]
    for lease in holdings.on[node]:
        for card in holdings.leases[lease].where.cards:
            on_cards[card].append(lease)
    leases = holdings.leases

    free = engine.free(node)

    def holds(card: int) -> bool:
        share, room, mode = free.cards[card]
        return (
            share >= want.share_ppm and room >= want.card_memory_bytes and (mode == 0 or mode == want.mode != EXCLUSIVE)
        )

    def trouble(card: int) -> tuple[bool, int, int]:
        stuck = not holds(card) and not all(leases[lease].movable for lease in on_cards[card])
        return stuck, sum(1 + leases[lease].want.slices for lease in on_cards[card]), card

    away: set[int] = set()
    for card in sorted(fitting, key=trouble)[: want.slices]:
        if not holds(card):
            away.update(on_cards[card])
    short = want.cpu_milli - free.cpu_milli - sum(leases[lease].want.cpu_milli for lease in away)
    rest = sorted(holdings.on[node] - away, key=lambda lease: (-leases[lease].want.cpu_milli, lease))
    while short > 0 and rest:
        enough = [lease for lease in rest if leases[lease].want.cpu_milli >= short]
        chosen = min(enough, key=lambda lease: _weight(leases[lease].want)) if enough else rest[0]
        rest.remove(chosen)
        away.add(chosen)
        short -= leases[chosen].want.cpu_milli
    memory = free.memory_bytes + sum(leases[lease].want.memory_bytes for lease in away)
    fits = short <= 0 and memory >= want.memory_bytes and 0 < len(away) <= budget.at_once
    if not fits or not all(leases[lease].movable for lease in away):
        return None
    return _Set(len(away), sum(_weight(leases[lease].want)[0] for lease in away), node, tuple(sorted(away)))


def _weight(want: Want) -> tuple[int, int]:
    return want.share_sum_ppm + want.cpu_milli * _CORE_AS_PPM // 1000, want.cpu_milli


def _largest_first(holdings: Holdings, leases: Iterable[int]) -> list[int]:
    def key(lease: int) -> tuple[int, int, int]:
        want = holdings.leases[lease].want
        return -want.share_sum_ppm, -want.cpu_milli, lease

    return sorted(leases, key=key)


def _try(engine: Engine, holdings: Holdings, class_: int, chosen: _Set) -> Room | None:
    """Moves a set away and takes the request, or leaves the engine as it was."""
    away = _largest_first(holdings, chosen.leases)
    for lease in away:
        engine.give(holdings.leases[lease].class_, holdings.leases[lease].where)
    seen = engine.look(class_, chosen.node)
    if seen is not None and engine.take(class_, seen.where):
        moves = _settle(engine, holdings, away)
        if moves is not None:
            return Room(seen.where, moves)
        engine.give(class_, seen.where)
    _put_back(engine, holdings, away)
    return None


def _settle(engine: Engine, holdings: Holdings, away: Sequence[int]) -> tuple[Move, ...] | None:
    """Places what was moved away, all or nothing."""
    moves: list[Move] = []
    for lease in away:
        holding = holdings.leases[lease]
        end = engine.place(holding.class_)
        if end is None:
            for move in moves:
                engine.give(holdings.leases[move.lease].class_, move.end)
            return None
        moves.append(Move(lease, holding.where, end))
    return tuple(moves)


def _put_back(engine: Engine, holdings: Holdings, away: Sequence[int]) -> None:
    for lease in away:
        if not engine.take(holdings.leases[lease].class_, holdings.leases[lease].where):
            raise AssertionError("what was just given back no longer fits")


def consolidate(engine: Engine, holdings: Holdings, most_moves: int, budget: MoveBudget) -> list[Move]:
    """Empties nodes, at most by `most_moves` moves; the engine and the holdings hold the outcome.

    First nodes with few leases into those that run something anyway; then, while moves are left, several small nodes
    into an empty large one. What cannot be emptied as a whole is left alone.
    """
    state = holdings.state
    shut = [node for node in range(state.nodes) if not holdings.on[node] and state.open[node]]
    for node in shut:
        engine.set_open(node, False)
    running = sorted((node for node in holdings.on if holdings.on[node]), key=lambda at: (len(holdings.on[at]), at))
    moves = _empty_each(engine, holdings, running, most_moves, budget)
    emptied = [node for node in running if not holdings.on[node]]
    large = sorted(shut, key=lambda node: (-state.cards[node], -state.cpu_total_milli[node], node))
    for node in large:
        small = [other for other in running if holdings.on[other] and state.cards[other] < state.cards[node]]
        small.sort(key=lambda other: (state.cards[other], len(holdings.on[other]), other))
        engine.set_open(node, True)
        made = _empty_each(engine, holdings, small[: budget.at_once], most_moves - len(moves), budget, misses=4)
        gone = [other for other in small if not holdings.on[other]]
        if len(gone) < 2:
            _undo(engine, holdings, made)
            for other in gone:
                engine.set_open(other, True)
            engine.set_open(node, False)
            break
        emptied += gone
        moves += made
    for node in (*shut, *emptied):
        engine.set_open(node, bool(state.open[node]))
    return moves


def _empty_each(
    engine: Engine,
    holdings: Holdings,
    nodes: Sequence[int],
    most_moves: int,
    budget: MoveBudget,
    misses: int | None = None,
) -> list[Move]:
    """Empties these nodes in turn until moves are used up or `misses` of them could not be. Emptied ones stay shut."""
    moves: list[Move] = []
    left = budget.tries if misses is None else misses
    for node in nodes:
        leases = tuple(holdings.on[node])
        if not 0 < len(leases) <= min(budget.at_once, most_moves - len(moves)) or left <= 0:
            continue
        if not all(holdings.leases[lease].movable for lease in leases):
            continue
        engine.set_open(node, False)
        made = _empty(engine, holdings, leases)
        moves += made
        if not made:
            left -= 1
            engine.set_open(node, bool(holdings.state.open[node]))
    return moves


def _undo(engine: Engine, holdings: Holdings, moves: Sequence[Move]) -> None:
    for move in moves:
        engine.give(holdings.leases[move.lease].class_, move.end)
    for move in moves:
        holdings.moved(Move(move.lease, move.end, move.start))
    _put_back(engine, holdings, [move.lease for move in moves])


def _empty(engine: Engine, holdings: Holdings, leases: Sequence[int]) -> list[Move]:
    away = _largest_first(holdings, leases)
    for lease in away:
        engine.give(holdings.leases[lease].class_, holdings.leases[lease].where)
    moves = _settle(engine, holdings, away)
    if moves is None:
        _put_back(engine, holdings, away)
        return []
    for move in moves:
        holdings.moved(move)
    return list(moves)
