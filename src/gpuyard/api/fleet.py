"""The fleet over HTTP: nodes, cards, offers, and what this machine can and cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller, decode_cursor, encode_cursor
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.control.offering import list_offers
from gpuyard.engines.local import LocalEngine
from gpuyard.model.fleet import Card
from gpuyard.model.slices import FRACTIONS, SliceShape
from gpuyard.slicing.ladder import guarantee
from gpuyard.store import fleet, leases
from gpuyard.texts import text

router = APIRouter(tags=["fleet"])

T = TypeVar("T")


def _cut(
    of: str, items: list[T], key: Callable[[T], str], limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """One page of a list that is sorted by `key`."""
    after = decode_cursor(cursor, of, 1)
    rest = [item for item in sorted(items, key=key) if after is None or key(item) > after[0]]
    return rest[:limit], encode_cursor(of, key(rest[limit - 1])) if len(rest) > limit else None


@router.get("/nodes", responses={200: {"model": schemas.Page[schemas.NodeView]}})
async def list_nodes(caller: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Servers, by name."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        found, more = _cut("nodes", list(caller.yard.roster.nodes), lambda node: node.name, limit, cursor)
        return page([views.node_view(node) for node in found], more)

    return await caller.read(work)


@router.get("/cards", responses={200: {"model": schemas.Page[schemas.CardView]}})
async def list_cards(caller: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Cards by node and PCI address, with what is free of each."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            found, more = _cut(
                "cards", fleet.cards(c), lambda card: f"{card.node} {card.pci_address} {card.uuid}", limit, cursor
            )
            used = leases.usage(c)
            holders = Counter(cut.card_uuid for lease in leases.open_leases(c) for cut in lease.slices)
        return page([views.card_view(card, used.get(card.uuid, (0, 0)), holders[card.uuid]) for card in found], more)

    return await caller.read(work)


@router.get("/offers", responses={200: {"model": schemas.Page[schemas.OfferView]}})
async def show_offers(caller: Caller, limit: Limit = 500, cursor: str | None = None) -> Response:
    """What can be rented, with prices and how many of each could be granted now."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            offers = list_offers(caller.yard, c)
        order = {offer.name: f"{n:06d}" for n, offer in enumerate(offers)}
        found, more = _cut("offers", offers, lambda offer: order[offer.name], limit, cursor)
        return page([views.offer_view(offer, caller.language) for offer in found], more)

    return await caller.read(work)


@router.get("/doctor")
async def doctor(caller: Caller) -> Response:
    """What was found, what each card can guarantee, what is missing and how to get it."""
    caller.must(Action.OPERATE_YARD, None)
    return await caller.read(lambda: answer(doctor_view(caller)))


def doctor_view(caller: Asking) -> views.View:
    yard = caller.yard
    with yard.store.read() as c:
        cards = fleet.cards(c)
    return {
        "findings": [
            {
                "name": finding.name,
                "ok": finding.ok,
                "text": text(f"doctor.{finding.name}.{_WORD[finding.ok]}", caller.language, **finding.params),
            }
            for finding in yard.findings
        ],
        "cards": [
            {
                "uuid": card.uuid,
                "model": card.model,
                "node": card.node,
                "guarantees": [
                    _guarantee(card, parts, name, yard.engine, caller.language)
                    for name, parts in (_SHAPES if card.mig is None else _INSTANCES)
                ],
            }
            for card in cards
        ],
    }


_SHAPES = (("full", FRACTIONS["full"]), ("fraction", FRACTIONS["half"]))
_INSTANCES = (("instance", FRACTIONS["full"]),)
_WORD = {True: "ok", False: "missing", None: "unknown"}


def _guarantee(card: Card, parts: int, name: str, engine: LocalEngine, language: str) -> views.View:
    kind, shape = engine.default, SliceShape.fraction(card.memory_bytes, parts)
    verdict = guarantee(card, shape, kind, engine.shim_on(kind), engine.mps_on(kind), engine.kernel_on(kind))
    return {
        "shape": name,
        "guarantee": verdict.guarantee.value,
        "because": text(f"guarantee.{verdict.because}", language),
        "not_protected": [text(f"guarantee.{key}", language) for key in verdict.not_protected],
    }
