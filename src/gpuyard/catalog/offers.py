"""Offers: the named fractions of every card model that is present and has a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gpuyard.catalog import cards as catalog
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card, Node
from gpuyard.model.offers import Offer
from gpuyard.model.slices import FRACTIONS, Guarantee, SliceShape

_WEAKNESS: Final = {guarantee: rank for rank, guarantee in enumerate(Guarantee)}


class Verdict(Protocol):
    """What the guarantee ladder says of a shape on a card."""

    @property
    def guarantee(self) -> Guarantee:
        """Who enforces the slice."""
        ...

    @property
    def not_protected(self) -> tuple[str, ...]:
        """What that leaves open, as text keys."""
        ...


GuaranteeOf = Callable[[Card, SliceShape], Verdict]


@dataclass(frozen=True, slots=True)
class OfferShape:
    """What an offer's name stands for in this yard."""

    card_model: str
    shape: SliceShape


def offer_name(model: str, fraction: str) -> str:
    """`rtx4090-quarter`."""
    return f"{model.lower()}-{fraction}"


def make(cards: Sequence[Card], nodes: Sequence[Node], book: PriceBook, guarantee_of: GuaranteeOf) -> list[Offer]:
    """Every model present x every named fraction, by model name and from large to small.

    Memory is that of the smallest card of the model; CPU and memory of the node are its share per card on the node that
    has least, so that a node full of such slices always fits. The guarantee is the weakest that any of these cards
    gives. A model that the book has no price for is not offered, nor are cards of nodes that are not given.
    """
    known = {node.name for node in nodes}
    cards = [card for card in cards if card.node in known]
    by_model: dict[str, list[Card]] = {}
    for card in cards:
        by_model.setdefault(card.model, []).append(card)
    per_node = Counter(card.node for card in cards)
    per_card = {node.name: _per_card(node, max(per_node[node.name], len(node.cards), 1)) for node in nodes}
    return [
        _offer(model, fraction, of_model, per_card, book, guarantee_of)
        for model, of_model in sorted(by_model.items())
        if book.sells(model)
        for fraction in _fractions(model)
    ]


def _fractions(model: str) -> tuple[str, ...]:
    """What is offered of a card by name. Nothing here divides a card of another vendor than NVIDIA."""
    known = catalog.lookup(model)
    return tuple(FRACTIONS) if known is None or known.vendor == "nvidia" else ("full",)


def shape_of(name: str, cards: Sequence[Card]) -> OfferShape:
    """What an offer's name stands for among these cards: the fraction of the smallest card of its model.

    Raises YardError `unknown_offer` for a name that is no offer, `no_card_of_model` where none of the cards is of it.
    """
    memory: dict[str, int] = {}
    for card in cards:
        memory[card.model] = min(memory.get(card.model, card.memory_bytes), card.memory_bytes)
    slug, _, fraction = name.lower().rpartition("-")
    present = next((model for model in memory if model.lower() == slug), None)
    parts = FRACTIONS.get(fraction) if fraction in _fractions(slug) else None
    if parts is not None and present is not None:
        return OfferShape(present, SliceShape.fraction(memory[present], parts))
    known = catalog.lookup(slug) if parts is not None else None
    if known is not None:
        raise YardError("no_card_of_model", model=known.name, present=", ".join(sorted(memory)) or "--")
    names = [offer_name(model, each) for model in sorted(memory) for each in _fractions(model)]
    raise YardError("unknown_offer", offer=name[:64], known=", ".join(names) or "--")


def _per_card(node: Node, count: int) -> tuple[int, int]:
    """Milli-cores and bytes for each of a node's `count` cards."""
    return node.cpu_milli // count, node.memory_bytes // count


def _offer(
    model: str,
    fraction: str,
    cards: Sequence[Card],
    per_card: Mapping[str, tuple[int, int]],
    book: PriceBook,
    guarantee_of: GuaranteeOf,
) -> Offer:
    parts = FRACTIONS[fraction]
    memory_bytes = min(card.memory_bytes for card in cards)
    shape = SliceShape.fraction(memory_bytes, parts)
    shares = [per_card[node] for node in {card.node for card in cards}]
    verdicts = [guarantee_of(card, shape) for card in cards]
    weakest = max((verdict.guarantee for verdict in verdicts), key=_WEAKNESS.__getitem__)
    open_to = dict.fromkeys(key for verdict in verdicts for key in verdict.not_protected)
    return Offer(
        name=offer_name(model, fraction),
        card_model=model,
        shape=shape,
        cpu_milli=min(cpu for cpu, _ in shares) // parts,
        memory_bytes=min(memory for _, memory in shares) // parts,
        guarantee=weakest,
        not_protected=tuple(open_to),
        price_per_hour_nano=book.price_nano(model, shape.share_of_card_ppm(memory_bytes)),
        currency=book.currency,
    )
