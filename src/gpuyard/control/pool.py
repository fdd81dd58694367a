"""How much of the pool is leased beside what it should be, and what moves have brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuyard.catalog import cards as catalogue
from gpuyard.control.yard import Yard
from gpuyard.model.fleet import Card, Node
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.units import HOUR_US
from gpuyard.store import leases, moves

DAY_US: Final = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class PoolUse:
    """`leased_ppm` of all cards that can be leased (None: there are none), the target, and moves.

    `saved_watts` is what the cards of nodes that moves emptied in the last day, and that are empty still, draw when
    idle: what switching them off saves. None where the catalogue does not know the figure of one of them.
    """

    leased_ppm: int | None
    target_ppm: int
    nodes: int
    empty_nodes: int
    moves_on_the_way: int
    moves_done: int
    saved_watts: int | None


def pool_use(yard: Yard, now_us: int) -> PoolUse:
    """As of now."""
    nodes = [node for node in yard.roster.nodes if node.state is not NodeState.LOST]
    with yard.store.read() as c:
        used = leases.usage(c)
        under_way = moves.under_way(c)
        done = moves.done_since(c, now_us - DAY_US)
    kept = moves.held(under_way.values())
    taken = used.keys() | kept.keys()
    able = [card for node in nodes for card in node.cards if card.state is CardState.HEALTHY]
    leased = sum(used.get(card.uuid, (0, 0))[1] for card in able)
    empty = [node for node in nodes if node.cards and not any(card.uuid in taken for card in node.cards)]
    emptied = {move.start.node for move in done}
    return PoolUse(
        leased_ppm=leased // len(able) if able else None,
        target_ppm=yard.use_target_ppm,
        nodes=len(nodes),
        empty_nodes=len(empty),
        moves_on_the_way=len(under_way),
        moves_done=len(done),
        saved_watts=_idle_watts([node for node in empty if node.name in emptied]),
    )


def _idle_watts(nodes: list[Node]) -> int | None:
    watts = [_watts(card) for node in nodes for card in node.cards]
    known = [each for each in watts if each is not None]
    return sum(known) if len(known) == len(watts) else None


def _watts(card: Card) -> int | None:
    model = catalogue.lookup(card.model)
    return None if model is None else model.idle_watts
