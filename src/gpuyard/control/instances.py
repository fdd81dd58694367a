"""Cards in MIG mode as they are cut now: the instances of leases, and those that others made by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from gpuyard.model.fleet import Card, Node
from gpuyard.model.mig import MigCut, MigPlace

# No instance can be where this is: it stands for all of a card that nothing is leased of.
ALL_OF_IT: Final = MigPlace(-1, 0, 8)


def with_instances(cards: Iterable[Card], held: Mapping[str, tuple[MigCut, ...]]) -> tuple[Card, ...]:
    """The cards with the instances that back slices, besides those of others that are there already."""
    if not held:
        return tuple(cards)
    return tuple(_with(card, (cut.place for cut in held.get(card.uuid, ()))) for card in cards)


def with_others(nodes: Iterable[Node], others: Mapping[str, tuple[MigPlace, ...]], held: Collection[str]) -> list[Node]:
    """The nodes whose cards in MIG mode have these instances that are not ours. Real cards that are not among `held`,
    where instances were seen to hold, are full: their mode was turned on since, or nobody here may make any."""
    return [replace(node, cards=tuple(_seen(card, others, held) for card in node.cards)) for node in nodes]


def _seen(card: Card, others: Mapping[str, tuple[MigPlace, ...]], held: Collection[str]) -> Card:
    untried = () if card.simulated or card.uuid in held else (ALL_OF_IT,)
    return _with(card, (*others.get(card.uuid, ()), *untried))


def _with(card: Card, places: Iterable[MigPlace]) -> Card:
    if card.mig is None:
        return card
    more = tuple(place for place in places if place not in card.mig.taken)
    return replace(card, mig=replace(card.mig, taken=(*card.mig.taken, *more))) if more else card
