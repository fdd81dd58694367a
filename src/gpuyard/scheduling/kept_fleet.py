"""The state and the engine of a fleet, kept from one plan to the next: nodes that are as they were are not read again.

A kept engine answers as one that is made anew from the same nodes: what it remembers of a node, it works out again
when the node is put there anew. Whoever has it has it alone; others get an engine of their own meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from gpuyard.scheduling.engine import Engine, EngineMaker, Typical
from gpuyard.scheduling.plan import NodeView, Snapshot
from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.state import State

_MOST_PLANS: Final = 1000  # after which it is made anew: an engine remembers every kind of request and of rest
_MOST_SIZES: Final = 16  # sizes of card memory: beyond, what an engine expects depends on which it met first

# Nodes in the order in which they are filled, and the columns for them at these prices.
Order = Callable[[Sequence[NodeView]], list[NodeView]]
Columns = Callable[[Sequence[NodeView], "Mapping[str, int] | None"], State]


@dataclass(slots=True)
class Fleet:
    """Nodes in their order, the columns made of them, and the engine that they are in."""

    nodes: list[NodeView]
    state: State
    engine: Engine
    number: Mapping[str, int]
    prices_nano: Mapping[str, int]
    plans: int = 0
    touched: set[int] = field(default_factory=set[int])  # nodes on which a plan has taken something
    mix: tuple[Sequence[Typical], int] | None = None
    tiers: Sequence[int] | None = None

    def expect(self, mix: Sequence[Typical], cpu_per_card_milli: int, tiers: Sequence[int]) -> None:
        """Tells the engine what is likely to come, where that has changed."""
        if (mix, cpu_per_card_milli) != self.mix:
            self.mix = mix, cpu_per_card_milli
            self.engine.set_mix(mix, cpu_per_card_milli)
        if tiers != self.tiers:
            self.tiers = tiers
            self.engine.set_tiers(tiers)

    def renew(self, snapshot: Snapshot, columns: Columns) -> bool:
        """Puts the nodes there as they are now. False where these are other nodes, cards or
        prices, and then nothing is changed."""
        if len(snapshot.nodes) != len(self.nodes) or snapshot.prices_nano != self.prices_nano:
            return False
        changed: dict[int, NodeView] = {}
        for node in snapshot.nodes:
            at = self.number.get(node.name)
            if at is None or not _alike(node, self.nodes[at]):
                return False
            if node is not self.nodes[at] or at in self.touched:
                changed[at] = node
        for at, node in changed.items():
            self.nodes[at] = node
            self.state.put_node(at, columns([node], None))
            self.engine.renew_node(at, self.state)
        self.touched.clear()
        return True


def _alike(one: NodeView, other: NodeView) -> bool:
    """Whether these have the same cards in the same places, in whatever use."""
    if one is other:
        return True
    if one.topology is not other.topology or len(one.cards) != len(other.cards):
        return False
    return all(
        (a.uuid, a.model, a.memory_bytes) == (b.uuid, b.model, b.memory_bytes)
        for a, b in zip(one.cards, other.cards, strict=True)
    )


class KeptFleet:
    """At most one fleet, the one that was planned for last. May be used from any thread."""

    def __init__(self, make_engine: EngineMaker, policy: Policy, order: Order, columns: Columns) -> None:
        self._make_engine, self._policy, self._order, self._columns = make_engine, policy, order, columns
        self._fleet: Fleet | None = None
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, snapshot: Snapshot) -> Generator[Fleet]:
        """The fleet of this snapshot. What is taken on its engine is undone later, where `touched` tells of it."""
        if not self._lock.acquire(blocking=False):
            fleet = self._made(snapshot)
            yield fleet
            fleet.engine.close()
            return
        try:
            kept, self._fleet = self._fleet, None  # whatever fails, a fleet that is half renewed is not kept
            known = kept is not None and kept.plans < _MOST_PLANS and kept.renew(snapshot, self._columns)
            fleet = kept if kept is not None and known else self._made(snapshot)
            fleet.plans += 1
            yield fleet
            if kept is not None and fleet is not kept and _is_part(snapshot, kept):
                kept.plans += 1
                fleet.engine.close()
                fleet = kept
            self._fleet = fleet if _is_keepable(fleet) else None
        finally:
            self._lock.release()

    def _made(self, snapshot: Snapshot) -> Fleet:
        nodes = self._order(snapshot.nodes)
        state = self._columns(nodes, snapshot.prices_nano)
        number = {node.name: at for at, node in enumerate(nodes)}
        return Fleet(nodes, state, self._make_engine(state, self._policy, 0), number, snapshot.prices_nano)


def _is_part(snapshot: Snapshot, kept: Fleet) -> bool:
    """Whether a few nodes of a fleet are looked at, of which the whole will soon be wanted again."""
    return 2 * len(snapshot.nodes) < len(kept.nodes) and kept.plans < _MOST_PLANS


def _is_keepable(fleet: Fleet) -> bool:
    return len({card.memory_bytes for node in fleet.nodes for card in node.cards}) <= _MOST_SIZES
