"""Spot as both clouds ask for it: the most that is to be paid, what becomes of an instance that is taken back, and the
yard's own price history."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.faults import Fault
from gpuyard.billing.spot import ROUND_US
from gpuyard.catalog import aliases
from gpuyard.control.bidding import price_above
from gpuyard.control.buying import slice_of
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.times import from_text
from gpuyard.model.units import DAY_US, format_price, parse_price
from gpuyard.model.workloads import WhenReclaimed
from gpuyard.store import commitments as stored

KEPT_US: Final = 90 * DAY_US  # how far back both clouds tell


@dataclass(frozen=True, slots=True)
class Bought:
    """How instances are to be bought, what becomes of them where spot takes them back, and the most that one of them
    may cost an hour."""

    option: PurchaseOption = PurchaseOption.ON_DEMAND
    when_reclaimed: WhenReclaimed = WhenReclaimed.WAIT
    max_price_nano: int | None = None


def limit(text: str | None, name: str) -> int | None:
    """The most that a client wants to pay for an hour; None where it does not say. Raises Fault."""
    if not text:
        return None
    try:
        return parse_price(text)
    except YardError:
        raise Fault("InvalidParameterValue", f"{name} must be a price such as 0.25, not {text[:40]}.") from None


def must_meet_the_price(caller: Asking, kind: str, bought: Bought, code: str) -> None:
    """Both clouds refuse at once what the price in force is above: nothing waits that its client believes to run.

    Raises Fault.
    """
    bid = bought.max_price_nano
    price = price_above(caller.yard, aliases.load().offer(kind).lower(), bid)
    if bid is not None and price is not None:
        currency = caller.yard.book.currency
        told = f"The limit of {format_price(bid)} {currency} an hour is below the spot price in force"
        raise Fault(code, f"{told}, {format_price(price)} {currency}: raise it, leave it out, or wait.")


def _most_nano(caller: Asking, offer: str) -> int:
    """The book's price for spot, which the market never passes."""
    model, share_ppm = slice_of(offer)
    return caller.yard.book.spot_bounds_nano(model, share_ppm)[1]


@dataclass(frozen=True, slots=True)
class Price:
    """A spot price, and from when it holds."""

    offer: str
    at_us: int
    price_nano: int
    on_demand_nano: int


def moment(text: str | None, name: str) -> int | None:
    """A moment as clients write it. Raises Fault."""
    if not text:
        return None
    try:
        return from_text(text)
    except (YardError, ValueError):
        raise Fault("InvalidParameterValue", f"{name} must be a moment such as 2026-11-28T07:00:00Z.") from None


def history(caller: Asking, kinds: Collection[str], from_us: int | None, until_us: int | None) -> list[Price]:
    """The prices of offers within a span, newest first: those that changed in it, and before them the one that was in
    force when it began. An offer whose price has never moved costs what the book asks."""
    now_us = caller.yard.clock.now_us()
    since_us = max(now_us - KEPT_US, from_us or 0)
    until_us = now_us if until_us is None else until_us
    wanted = {aliases.load().offer(kind).lower() for kind in kinds}
    with caller.yard.store.read() as c:
        known = stored.spot_prices(c)
    found: list[Price] = []
    for offer in nouns.offers(caller.yard):
        if wanted and offer.name not in wanted:
            continue
        changes = [change for change in known.get(offer.name, ()) if change[0] <= until_us]
        if not changes:
            changes = [(max(since_us, now_us // ROUND_US * ROUND_US), _most_nano(caller, offer.name))]
        before = [change for change in changes if change[0] < since_us][-1:]
        told = [*before, *(change for change in changes if change[0] >= since_us)]
        found += [Price(offer.name, at_us, nano, offer.price_per_hour_nano) for at_us, nano in told]
    return sorted(found, key=lambda price: (-price.at_us, price.offer))
