"""Moves of running leases. A move holds the place that its lease does not: the target until the lease has switched, the
source from then on, so that either can be gone back to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select

from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.store.move_tables import MOVES


class MoveState(StrEnum):
    """How far a move is."""

    RESERVED = "reserved"  # the target is held; the unit is asked to save its work and end
    SWITCHED = "switched"  # the lease holds the target; the unit starts there; the source is still held
    DONE = "done"
    UNDONE = "undone"  # the lease is where it was, or is no more


class MoveCause(StrEnum):
    """What a move is for."""

    BLOCKED = "blocked"  # room for a lease that fits nowhere
    LOW_LOAD = "low_load"  # nodes that run little are emptied
    PEAK = "peak"  # the hours of sharing are over: who pays gets whole cards


@dataclass(frozen=True, slots=True)
class Place:
    """Cards of one node, each with the guarantee that a slice of the lease has there, and the processors near them."""

    node: str
    cards: tuple[tuple[str, Guarantee], ...]
    cpus: str | None = None  # as a Linux CPU list, where the topology is known

    @property
    def uuids(self) -> tuple[str, ...]:
        """The cards alone."""
        return tuple(uuid for uuid, _ in self.cards)


@dataclass(frozen=True, slots=True)
class Move:
    """One lease goes from here to there. `shape` is that of each slice; CPU and memory are the node's."""

    id: str
    lease_id: str
    tenant_id: str
    cause: MoveCause
    wanted_for: str | None  # the lease that waits for the room
    state: MoveState
    start: Place
    end: Place
    shape: SliceShape
    cpu_milli: int
    memory_bytes: int
    begun_us: int
    switched_us: int | None = None
    ended_us: int | None = None

    @property
    def held(self) -> Place:
        """The place that is kept for the lease beside the one that it holds."""
        return self.start if self.state is MoveState.SWITCHED else self.end

    def slices_at(self, place: Place) -> tuple[Slice, ...]:
        """What the lease holds once it is there."""
        return tuple(Slice(self.lease_id, uuid, self.shape, level) for uuid, level in sorted(place.cards))


_OPEN = select(MOVES).where(MOVES.c.ended_us.is_(None)).order_by(MOVES.c.id)
_SWITCH = (
    MOVES.update()
    .where(MOVES.c.id == bindparam("b_id"), MOVES.c.state == MoveState.RESERVED.value, MOVES.c.ended_us.is_(None))
    .values(state=MoveState.SWITCHED.value, switched_us=bindparam("b_us"))
)
_END = (
    MOVES.update()
    .where(MOVES.c.id == bindparam("b_id"), MOVES.c.ended_us.is_(None))
    .values(state=bindparam("b_state"), ended_us=bindparam("b_us"))
)


def begin(c: Connection, move: Move) -> None:
    """A new move, its target held from now on. A second one of the same lease breaks a rule of the schema."""
    c.execute(
        MOVES.insert(),
        {
            "id": move.id,
            "lease_id": move.lease_id,
            "tenant_id": move.tenant_id,
            "cause": move.cause.value,
            "wanted_for": move.wanted_for,
            "state": move.state.value,
            "from_node": move.start.node,
            "from_cards": json.dumps([move.start.cards, move.start.cpus]),
            "to_node": move.end.node,
            "to_cards": json.dumps([move.end.cards, move.end.cpus]),
            "memory_bytes": move.shape.memory_bytes,
            "compute_ppm": move.shape.compute_ppm,
            "cpu_milli": move.cpu_milli,
            "node_memory_bytes": move.memory_bytes,
            "begun_us": move.begun_us,
        },
    )


def switch(c: Connection, move_id: str, now_us: int) -> bool:
    """The lease holds the target from now on, and the move the source. False where it is not at that point."""
    return c.execute(_SWITCH, {"b_id": move_id, "b_us": now_us}).rowcount == 1


def end(c: Connection, move_id: str, state: MoveState, now_us: int) -> bool:
    """The move is over and holds nothing any more. False where it was before."""
    return c.execute(_END, {"b_id": move_id, "b_state": state.value, "b_us": now_us}).rowcount == 1


def under_way(c: Connection) -> dict[str, Move]:
    """Every move that is not over, by lease."""
    return {row.lease_id: _move(row) for row in c.execute(_OPEN)}


def held(found: Collection[Move]) -> dict[str, tuple[int, int]]:
    """What these hold of each card beside their leases: bytes of memory and parts per million of compute."""
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for move in found:
        for uuid in move.held.uuids:
            memory, compute = sums[uuid]
            sums[uuid] = memory + move.shape.memory_bytes, compute + move.shape.compute_ppm
    return dict(sums)


def begun_since(c: Connection, since_us: int) -> Mapping[str, int]:
    """How many moves began since then, by lease."""
    query = select(MOVES.c.lease_id, func.count()).where(MOVES.c.begun_us > since_us).group_by(MOVES.c.lease_id)
    return {lease_id: int(count) for lease_id, count in c.execute(query)}


def done_since(c: Connection, since_us: int) -> list[Move]:
    """Moves that were done since then, oldest first."""
    query = select(MOVES).where(MOVES.c.ended_us > since_us, MOVES.c.state == MoveState.DONE.value)
    return [_move(row) for row in c.execute(query.order_by(MOVES.c.ended_us, MOVES.c.id))]


def _move(row: Row[Any]) -> Move:
    return Move(
        id=row.id,
        lease_id=row.lease_id,
        tenant_id=row.tenant_id,
        cause=MoveCause(row.cause),
        wanted_for=row.wanted_for,
        state=MoveState(row.state),
        start=_place(row.from_node, row.from_cards),
        end=_place(row.to_node, row.to_cards),
        shape=SliceShape(row.memory_bytes, row.compute_ppm),
        cpu_milli=row.cpu_milli,
        memory_bytes=row.node_memory_bytes,
        begun_us=row.begun_us,
        switched_us=row.switched_us,
        ended_us=row.ended_us,
    )


def _place(node: str, text: str) -> Place:
    cards, cpus = json.loads(text)
    return Place(node, tuple((uuid, Guarantee(level)) for uuid, level in cards), cpus)
