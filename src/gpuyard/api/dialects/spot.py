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
from gpuyard.control.buying import slice_of
from gpuyard.model.errors import YardError
from gpuyard.model.times import from_text
from gpuyard.model.units import DAY_US, format_price, parse_price
from gpuyard.store import commitments as stored

KEPT_US: Final = 90 * DAY_US  # how far back both clouds tell


def must_be_affordable(caller: Asking, kind: str, text: str | None, name: str) -> None:
    """Holds the most that a client wants to pay against what spot can cost here.

    The yard does not hold a lease to a price of its own yet: a limit that its market can never pass is as good as none,
    and any other is refused. The one place to lift that is here.

    Raises Fault.
    """
    if not text:
        return
    try:
        most = parse_price(text)
    except YardError:
        raise Fault("InvalidParameterValue", f"{name} must be a price such as 0.25, not {text[:40]}.") from None
    wanted = aliases.load().offer(kind).lower()
    offer = next((one for one in nouns.offers(caller.yard) if one.name == wanted), None)
    if offer is None:
        return  # which is refused for that
    cap = _most_nano(caller, wanted)
    if most < cap:
        least = f"{format_price(cap)} {offer.currency}"
        raise Fault(
            "UnsupportedOperation",
            f"{name} {text[:40]} is below {least}, the most that {wanted} can cost on spot: a limit of one's own is "
            f"not honoured here yet. Leave {name} out: the price in force is paid, never more than {least}.",
        )


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
