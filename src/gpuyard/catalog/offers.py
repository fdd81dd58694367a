"""Offers: the named fractions of every card model that is present and has a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gpuyard.catalog import cards as catalog
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card, Node
from gpuyard.model.mig import MigProfile
from gpuyard.model.offers import Offer
from gpuyard.model.slices import FRACTIONS, Guarantee, SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM

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
    mig: bool = False  # of MIG instances of that shape alone


def offer_name(model: str, fraction: str) -> str:
    """`rtx4090-quarter`."""
    return f"{model.lower()}-{fraction}"


def make(cards: Sequence[Card], nodes: Sequence[Node], book: PriceBook, guarantee_of: GuaranteeOf) -> list[Offer]:
    """Every model present x every named fraction, by model name and from large to small.

    Memory is that of the smallest card of the model; CPU and memory of the node are its share per card on the node that
    has least, so that a node full of such slices always fits. Cards in MIG mode are offered by the profiles of their
    instances, with what an instance really has. The guarantee is the weakest that any of these cards
    gives. A model that the book has no price for is not offered, nor are cards of nodes that are not given.
    """
    known = {node.name for node in nodes}
    cards = [card for card in cards if card.node in known]
    by_model: dict[str, list[Card]] = {}
    for card in cards:
        by_model.setdefault(card.model, []).append(card)
    per_node = Counter(card.node for card in cards)
    per_card = {node.name: _per_card(node, max(per_node[node.name], len(node.cards), 1)) for node in nodes}
    made: list[Offer] = []
    for model, of_model in sorted(by_model.items()):
        if book.sells(model):
            uncut = [card for card in of_model if card.mig is None]
            fractions = _fractions(model) if uncut else ()
            made += [_offer(model, fraction, uncut, per_card, book, guarantee_of) for fraction in fractions]
            in_mig_mode = [card for card in of_model if card.mig is not None]
            made += [
                _instance(model, profile, in_mig_mode, per_card, book, guarantee_of)
                for profile in _profiles(in_mig_mode)
            ]
    return made


def _fractions(model: str) -> tuple[str, ...]:
    """What is offered of a card by name. Nothing here divides a card of another vendor than NVIDIA."""
    known = catalog.lookup(model)
    return tuple(FRACTIONS) if known is None or known.vendor == "nvidia" else ("full",)


def _profiles(cards: Iterable[Card]) -> tuple[MigProfile, ...]:
    """What is offered of cards in MIG mode, from large to small. The variants with media engines (`+me`) have the same
    shape as those without."""
    found: dict[str, MigProfile] = {}
    for card in cards:
        for profile in card.mig.profiles if card.mig is not None else ():
            if "+" not in profile.name:
                found.setdefault(profile.name, profile)
    return tuple(sorted(found.values(), key=lambda p: (-p.compute_slices, -p.memory_bytes, p.id)))


def shape_of(name: str, cards: Sequence[Card]) -> OfferShape:
    """What an offer's name stands for among these cards: the fraction of the smallest card of its model, or the MIG
    instance of that profile.

    Raises YardError `unknown_offer` for a name that is no offer, `no_card_of_model` where none of the cards is of it.
    """
    slug, _, fraction = name.lower().rpartition("-")
    if (instance := _instance_shape(slug, fraction, cards)) is not None:
        return instance
    memory: dict[str, int] = {}
    for card in cards:
        if card.mig is None:
            memory[card.model] = min(memory.get(card.model, card.memory_bytes), card.memory_bytes)
    present = next((model for model in memory if model.lower() == slug), None)
    parts = FRACTIONS.get(fraction) if fraction in _fractions(slug) else None
    if parts is not None and present is not None:
        return OfferShape(present, SliceShape.fraction(memory[present], parts))
    known = catalog.lookup(slug) if parts is not None else None
    if known is not None and not any(card.model == known.name for card in cards):
        raise YardError("no_card_of_model", model=known.name, present=", ".join(sorted(memory)) or "--")
    names = [offer_name(model, each) for model in sorted(memory) for each in _fractions(model)]
    for model in sorted({card.model for card in cards if card.mig is not None}):
        names += [offer_name(model, profile.name) for profile in _profiles(c for c in cards if c.model == model)]
    raise YardError("unknown_offer", offer=name[:64], known=", ".join(names) or "--")


def _instance_shape(slug: str, profile: str, cards: Sequence[Card]) -> OfferShape | None:
    for card in cards:
        if card.mig is not None and card.model.lower() == slug:
            for each in _profiles((card,)):
                if each.name == profile:
                    return OfferShape(card.model, card.mig.shape(each), mig=True)
    return None


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


def _instance(
    model: str,
    profile: MigProfile,
    cards: Sequence[Card],
    per_card: Mapping[str, tuple[int, int]],
    book: PriceBook,
    guarantee_of: GuaranteeOf,
) -> Offer:
    """The offer of a profile: its part of what a whole card comes with is the larger of its two shares."""
    whole = _offer(model, "full", cards, per_card, book, guarantee_of)
    able = [card.mig for card in cards if card.mig is not None and profile in card.mig.profiles]
    shape = able[0].shape(profile)
    share = shape.share_of_card_ppm(min(card.memory_bytes for card in cards))
    return replace(
        whole,
        name=offer_name(model, profile.name),
        shape=shape,
        cpu_milli=whole.cpu_milli * share // SHARE_WHOLE_PPM,
        memory_bytes=whole.memory_bytes * share // SHARE_WHOLE_PPM,
        price_per_hour_nano=book.price_nano(model, share),
        mig=True,
    )
