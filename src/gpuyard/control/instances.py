"""Cards in MIG mode as they are cut now: the instances of leases, and those that others made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gpuyard.model.fleet import Card, Node
from gpuyard.model.mig import MigCut, MigPlace


def with_instances(cards: Iterable[Card], held: Mapping[str, tuple[MigCut, ...]]) -> tuple[Card, ...]:
    """The cards with the instances that back slices, besides those of others that are there already."""
    return tuple(_with(card, (cut.place for cut in held.get(card.uuid, ()))) for card in cards)


def with_others(nodes: Iterable[Node], others: Mapping[str, tuple[MigPlace, ...]]) -> list[Node]:
    """The nodes whose cards in MIG mode have these instances that are not ours."""
    if not others:
        return list(nodes)
    return [replace(node, cards=tuple(_with(card, others.get(card.uuid, ())) for card in node.cards)) for node in nodes]


def _with(card: Card, places: Iterable[MigPlace]) -> Card:
    if card.mig is None:
        return card
    more = tuple(place for place in places if place not in card.mig.taken)
    return replace(card, mig=replace(card.mig, taken=(*card.mig.taken, *more))) if more else card
