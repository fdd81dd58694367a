"""The fleet as the store has it, kept in memory: only the fleet watch changes it, and everything asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpuyard.catalog import offers as catalog_offers
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.fleet import Card, Node
from gpuyard.model.offers import Offer
from gpuyard.model.states import CardState, NodeState
from gpuyard.slicing.ladder import guarantee


@dataclass(frozen=True, slots=True)
class Roster:
    """Nodes and cards, and what follows from them alone."""

    nodes: tuple[Node, ...] = ()
    cards: tuple[Card, ...] = ()  # usable ones: there, on nodes that are there
    by_uuid: Mapping[str, Card] | None = None  # every card ever seen
    usable: frozenset[str] = frozenset()  # the UUIDs of `cards`
    offers: tuple[Offer, ...] = ()  # without how many are available
    resolved: dict[object, Any] = field(default_factory=dict[object, Any], compare=False, repr=False)  # see `offering`

    @classmethod
    def of(
        cls,
        nodes: list[Node],
        book: PriceBook,
        runtime_kind: str,
        shim: frozenset[str] = frozenset(),
        mps: frozenset[str] = frozenset(),
        kernel: frozenset[str] = frozenset(),
    ) -> Roster:
        """The roster of these nodes, with what is offered when `runtime_kind` runs it; `shim`, `mps` and `kernel` as
        the ladder has them."""
        here = [node for node in nodes if node.state is not NodeState.LOST]
        cards = [card for node in here for card in node.cards if card.state is not CardState.MISSING]
        offers = catalog_offers.make(
            cards, here, book, lambda card, shape: guarantee(card, shape, runtime_kind, shim, mps, kernel)
        )
        return cls(
            nodes=tuple(nodes),
            cards=tuple(cards),
            by_uuid={card.uuid: card for node in nodes for card in node.cards},
            usable=frozenset(card.uuid for card in cards),
            offers=tuple(offers),
        )

    def card(self, uuid: str) -> Card | None:
        """A card by its UUID, missing ones too."""
        return (self.by_uuid or {}).get(uuid)
