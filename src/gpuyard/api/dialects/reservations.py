"""Reservations as both clouds know them: an offering for each offer and term of the price book, and what was bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.billing.commitments import Commitment, reserve
from gpuyard.catalog.offers import offer_name
from gpuyard.catalog.price_terms import Upfront
from gpuyard.control import buying
from gpuyard.model.slices import FRACTIONS
from gpuyard.model.units import SHARE_WHOLE_PPM

PAID: Final[Mapping[Upfront, str]] = {
    Upfront.NONE: "No Upfront",
    Upfront.PARTIAL: "Partial Upfront",
    Upfront.ALL: "All Upfront",
}
MOST_AT_ONCE: Final = 10_000
_YEARS: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Offering:
    """What can be reserved, with what one of it would cost from now on."""

    offer: str
    preview: Commitment

    @property
    def id(self) -> str:
        return f"{self.offer}.{self.preview.years}y.{self.preview.upfront.value}"


def offerings(caller: Asking) -> list[Offering]:
    """Every offer under every term that the price book in force sells for its card."""
    yard, now_us = caller.yard, caller.yard.clock.now_us()
    found: list[Offering] = []
    for offer, years, upfront in product(nouns.offers(yard), _YEARS, Upfront):
        model, share_ppm = buying.slice_of(offer.name)
        if yard.book.reserved_rate(model, years, upfront) is not None:
            who = caller.identity.tenant_id
            preview = reserve(yard.book, "", who, model, share_ppm, years, upfront, now_us, offer.name)
            found.append(Offering(offer.name, preview))
    return found


def bought(caller: Asking) -> list[Commitment]:
    """The caller's own, in the order of purchase."""
    with caller.yard.store.read() as c:
        return buying.listing(c, caller.identity.tenant_id)


def as_instances(commitment: Commitment) -> tuple[str, int]:
    """A commitment as so many instances of one type: one that is good for any slices of a card as the largest that add
    up to it."""
    sizes = sorted(FRACTIONS.items(), key=lambda each: each[1])
    if commitment.offer is not None:
        return commitment.offer, commitment.share_ppm // buying.slice_of(commitment.offer)[1]
    for name, parts in sizes:
        if commitment.share_ppm % (SHARE_WHOLE_PPM // parts) == 0:
            return offer_name(commitment.card_model, name), commitment.share_ppm // (SHARE_WHOLE_PPM // parts)
    return offer_name(commitment.card_model, sizes[-1][0]), 1


def state(commitment: Commitment, now_us: int) -> str:
    """Terms begin on a full hour."""
    if now_us < commitment.start_us:
        return "queued"
    return "active" if now_us < commitment.end_us else "retired"
