"""Buying commitments at the prices in force."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from gpuyard.billing.commitments import Commitment, reserve
from gpuyard.catalog import cards
from gpuyard.catalog.mig import profiles_of
from gpuyard.catalog.price_terms import Upfront
from gpuyard.control.rating_conditions import commitment_of
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.mig import MigCard
from gpuyard.model.names import new_id
from gpuyard.model.slices import FRACTIONS
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.store import commitments as stored
from gpuyard.store import events, idempotency


@dataclass(frozen=True, slots=True)
class Wish:
    """Whole cards of a model, or slices of one name, for a term."""

    card_model: str | None
    offer: str | None
    count: int
    years: int
    upfront: Upfront


def slice_of(offer: str) -> tuple[str, int]:
    """The card model and the share of an offer's name, whether or not the yard has such a card.

    Raises YardError `unknown_offer`.
    """
    slug, _, fraction = offer.lower().rpartition("-")
    model = cards.lookup(slug)
    cut = MigCard("", True, profiles_of(model)) if model is not None else None
    profile = next((each for each in cut.profiles if each.name == fraction), None) if cut is not None else None
    if model is not None and cut is not None and profile is not None:
        return model.name, cut.shape(profile).share_of_card_ppm(model.memory_bytes)
    if model is None or fraction not in FRACTIONS:
        known = ", ".join(f"{cards.nearest(slug).lower()}-{name}" for name in FRACTIONS)
        raise YardError("unknown_offer", offer=offer[:64], known=known)
    return model.name, SHARE_WHOLE_PPM // FRACTIONS[fraction]


def reserve_for(
    yard: Yard, tenant: Tenant, wish: Wish, actor: str, keys: Sequence[str] = (), before: Sequence[str] = ()
) -> Commitment:
    """A commitment; any of the keys, with the same wish, gives what it bought the first time. `before` are keys that
    are looked for and not taken.

    Raises YardError `unknown_offer`, `unknown_card_model`, `no_price`, `no_reservation`, `invalid_request`,
    `idempotency_mismatch`.
    """
    if (wish.card_model is None) == (wish.offer is None):
        raise YardError("invalid_request", reason="card_or_offer")
    model, share = slice_of(wish.offer) if wish.offer else (cards.find(str(wish.card_model)).name, SHARE_WHOLE_PPM)
    now_us = yard.clock.now_us()
    bought = reserve(
        yard.book,
        new_id("cm", now_us),
        tenant.id,
        model,
        share * wish.count,
        wish.years,
        wish.upfront,
        now_us,
        wish.offer.lower() if wish.offer else None,
    )
    if bought.currency != tenant.currency:
        raise YardError("currency_mismatch", what=bought.id, found=bought.currency, expected=tenant.currency)
    mark = json.dumps(asdict(wish))
    with yard.store.write() as c:
        for key in (*keys, *before):
            if (known := idempotency.recall(c, tenant.id, key)) is not None:
                if known[0] != mark:
                    raise YardError("idempotency_mismatch", key=key.rpartition("\n")[2])
                return next(each for each in listing(c, tenant.id) if each.id == known[1])
        for key in keys:
            idempotency.remember(c, tenant.id, key, mark, bought.id, now_us)
        stored.insert(c, bought.id, tenant.id, now_us, json.dumps(asdict(bought)))
        facts = {"card_model": model, "share_ppm": bought.share_ppm, "total_nano": bought.total_nano}
        events.append(c, [Event("commitment.bought", bought.id, now_us, tenant.id, actor, facts)])
    return bought


def listing(c: Connection, tenant_id: str | None) -> list[Commitment]:
    """In the order of purchase."""
    return [commitment_of(body) for body in stored.bodies(c, tenant_id)]
