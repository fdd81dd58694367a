"""Sums that need no yard: prices compared, owning against renting, a spot round worked out again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from gpuyard.api.money_views import comparison_view, payable
from gpuyard.billing.comparing import Pattern, Reservation, compare
from gpuyard.billing.owning import Purchase, own
from gpuyard.billing.spot import recompute
from gpuyard.catalog.price_terms import Upfront
from gpuyard.model.errors import YardError
from gpuyard.model.units import format_price, parse_price

_RESERVED = re.compile(r"([1-9])y:([0-9]{1,2}(?:\.[0-9]{1,4})?|100)%?(?::(none|partial|all))?")


def compare_bare(
    hourly: str, hours: int, reserved: Sequence[str], spot: str | None, currency: str
) -> Mapping[str, Any]:
    """Bare numbers compared, as the API shows it. Raises YardError `invalid_price`, `invalid_pattern`."""
    found = compare(
        parse_price(hourly),
        _currency(currency),
        Pattern(hours),
        [_reservation(text) for text in reserved],
        parse_price(spot) if spot is not None else None,
    )
    return comparison_view(found)


def _reservation(text: str) -> Reservation:
    match = _RESERVED.fullmatch(text)
    if match is None:
        raise YardError("invalid_pattern", field="reserved", value=text[:40], expected="3y:45 | 1y:30:partial")
    return Reservation(int(match[1]), int(Fraction(match[2]) * 10_000), Upfront(match[3] or "none"))


def own_bare(
    price: str,
    years: int,
    watts: int,
    kwh: str,
    hours: int,
    rent: str,
    upkeep: str,
    resale: str,
    overhead_percent: int,
    idle_watts: int,
    currency: str,
) -> Mapping[str, Any]:
    """Buying against renting. Raises YardError `invalid_price`, `invalid_pattern`."""
    purchase = Purchase(
        price_nano=parse_price(price),
        years=years,
        watts=watts,
        kwh_nano=parse_price(kwh),
        idle_watts=idle_watts,
        overhead_ppm=overhead_percent * 10_000,
        upkeep_a_year_nano=parse_price(upkeep),
        resale_nano=parse_price(resale),
    )
    found = own(purchase, hours, parse_price(rent))
    shown = _currency(currency)
    return {
        "currency": shown,
        "years": years,
        "hours_a_year": hours,
        "owning": payable(found.total_nano, shown),
        "energy": payable(found.energy_nano, shown),
        "owning_per_hour": format_price(round(found.per_hour_nano / 1000) * 1000),
        "renting": payable(found.rent_nano, shown),
        "saving": payable(found.saving_nano, shown),
        "from_hours_a_year": found.from_hours_a_year,
        "pays_back_after_hours": found.pays_back_after_hours,
    }


def verify_round(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """A published spot round, worked out again. Raises YardError `bids_invalid`."""
    clearing = recompute(facts)
    return {
        "offer": facts["round"]["offer"],
        "at_us": facts["round"]["at_us"],
        "price_per_hour": format_price(clearing.price_nano),
        "winners": len(clearing.won),
        "genuine": True,
    }


def _currency(text: str) -> str:
    if re.fullmatch("[A-Z]{3}", text) is None:
        raise YardError("invalid_pattern", field="currency", value=text[:10], expected="USD (ISO 4217)")
    return text
