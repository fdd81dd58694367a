"""The price book: what a whole card costs per hour under each purchase option, and what is charged beside cards.

One book is one version of the prices. `gpuyard.catalog.price_history` holds the versions one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from gpuyard.catalog import cards, price_terms, rows
from gpuyard.catalog.price_terms import Discount, ReservedRate, Tariff, Upfront
from gpuyard.model.errors import YardError
from gpuyard.model.units import GIB, HOUR_US, SECOND_US, SHARE_WHOLE_PPM, format_price, parse_price

CODE: Final = "price_book_invalid"
MAX_MINIMUM_SECONDS: Final = 86_400

_PRICE: Final = '"0.60" (0..1000000, <= 9 decimals)'


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices in nano-units of `currency`; every result is rounded up to a whole nano."""

    currency: str
    minimum_us: int
    storage_per_gib_hour_nano: int
    on_demand_nano: Mapping[str, int]  # card model -> a whole card, per hour
    source: str | None = None
    spot_nano: Mapping[str, int] = field(default_factory=dict[str, int])  # as on_demand_nano, of spot leases
    spot_floor_nano: Mapping[str, int] = field(
        default_factory=dict[str, int]
    )  # said, or what its power costs, per hour
    units_ppm: Mapping[str, int] = field(default_factory=dict[str, int])  # card model -> compute units of a whole card
    unit_per_hour_nano: int | None = None  # a compute unit for an hour, where the yard sells by the unit
    stopped_per_hour_nano: int = 0  # beside its disk, for a stopped workload's place
    cpu_only_per_hour_nano: int | None = None  # an instance started without a card
    egress_per_gib_nano: int = 0
    reserved: tuple[ReservedRate, ...] = ()
    tariffs: tuple[Tariff, ...] = ()
    discounts: tuple[Discount, ...] = ()
    power: Power | None = None  # what the yard pays for it; None: not said
    purchase_nano: Mapping[str, int] = field(default_factory=dict[str, int])  # card model -> what the yard paid for one
    idle_watts: Mapping[str, int] = field(default_factory=dict[str, int])  # where the catalogue does not know
    version: str = "1"
    effective_from_us: int | None = None  # None: always was

    def sells(self, model: str) -> bool:
        """Whether there is a price for cards of this model."""
        return model in self.on_demand_nano

    def price_nano(self, model: str, share_ppm: int, spot: bool = False) -> int:
        """A share of a card of this model, per hour. Spot costs the same where the book has no price of its own for it.

        Raises YardError `no_price` where the book has none: such cards are not for rent.
        """
        whole = self.on_demand_nano.get(model)
        if whole is None:
            raise YardError("no_price", model=model)
        if spot:
            whole = self.spot_nano.get(model, whole)
        return -(-whole * share_ppm // SHARE_WHOLE_PPM)

    def storage_nano(self, disk_bytes: int) -> int:
        """A stopped workload's disk, per hour."""
        return -(-self.storage_per_gib_hour_nano * disk_bytes // GIB)

    def stopped_nano(self, disk_bytes: int) -> int:
        """All that a stopped workload costs per hour."""
        return self.stopped_per_hour_nano + self.storage_nano(disk_bytes)

    def spot_bounds_nano(self, model: str, share_ppm: int) -> tuple[int, int]:
        """Floor and cap of the spot price of a share: what its power costs, and what the book asks for spot at most.
        Both are the same, and the price does not move, where the book has neither a floor nor a price of power.

        Raises YardError `no_price`.
        """
        cap = self.price_nano(model, share_ppm, spot=True)
        floor = self.spot_floor_nano.get(model)
        return cap if floor is None else min(cap, -(-floor * share_ppm // SHARE_WHOLE_PPM)), cap

    def unit_price_nano(self, model: str, share_ppm: int) -> int | None:
        """A share per hour when paid by the compute unit: unit price x units of the card x share."""
        if self.unit_per_hour_nano is None or model not in self.units_ppm:
            return None
        whole = self.unit_per_hour_nano * self.units_ppm[model] * share_ppm
        return -(-whole // (price_terms.WHOLE_PPM * SHARE_WHOLE_PPM))

    def reserved_rate(self, model: str, years: int, upfront: Upfront) -> ReservedRate | None:
        """The row for this card, term and payment; one that names the card before one for all."""
        fitting = [
            rate
            for rate in self.reserved
            if (rate.years, rate.upfront) == (years, upfront) and (not rate.cards or model in rate.cards)
        ]
        return max(fitting, key=lambda rate: bool(rate.cards), default=None)

    def discount_ppm(self, tenant: str, model: str) -> int:
        """What the tenant of this name pays less for cards of this model."""
        fitting = [d for d in self.discounts if d.tenant == tenant and (not d.cards or model in d.cards)]
        return max(fitting, key=lambda d: bool(d.cards)).discount_ppm if fitting else 0

    def factor_ppm(self, moment_us: int) -> int:
        """What the clock makes of every price at this moment. Constant within a quarter of an hour."""
        return _factor(self.tariffs, moment_us // price_terms.QUARTER_US) if self.tariffs else price_terms.WHOLE_PPM


@dataclass(frozen=True, slots=True)
class Power:
    """The operator's own price of a kilowatt-hour. `overhead_ppm`: what cooling and losses take beside the cards."""

    per_kwh_nano: int
    overhead_ppm: int = 0
    tariffs: tuple[Tariff, ...] = ()

    def per_kwh_at(self, hour: int) -> Fraction:
        """The price in an hour (counted from 1970), all told: the mean of its quarters, as tariffs change on these."""
        quarters = HOUR_US // price_terms.QUARTER_US
        factors = [
            _factor(self.tariffs, hour * quarters + n) if self.tariffs else price_terms.WHOLE_PPM for n in range(4)
        ]
        whole = price_terms.WHOLE_PPM
        return Fraction(self.per_kwh_nano * sum(factors) * (whole + self.overhead_ppm), quarters * whole * whole)


@lru_cache(maxsize=1 << 16)
def _factor(tariffs: tuple[Tariff, ...], quarter: int) -> int:
    moment_us = quarter * price_terms.QUARTER_US
    return next((t.factor_ppm for t in tariffs if t.holds(moment_us, ZoneInfo(t.zone))), price_terms.WHOLE_PPM)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    currency: str
    minimum_seconds: int = 60
    storage_per_gib_hour: str
    source: str | None = None
    unit_per_hour: str | None = None
    stopped_per_hour: str = "0"
    cpu_only_per_hour: str | None = None
    egress_per_gib: str = "0"
    power_per_kwh: str | None = None
    power_overhead: str = "0%"


@dataclass(frozen=True, slots=True, kw_only=True)
class _CardRow:
    on_demand: str | None = None
    spot: str | None = None
    spot_floor: str | None = None
    units: str | None = None
    purchase: str | None = None
    idle_watts: int | None = None


_TABLES: Final = ("cards", "reserved", "tariff", "discount", "power_tariff")
_HEAD: Final = (
    "currency",
    "minimum_seconds",
    "storage_per_gib_hour",
    "source",
    "unit_per_hour",
    "stopped_per_hour",
    "cpu_only_per_hour",
    "egress_per_gib",
    "power_per_kwh",
    "power_overhead",
)


def load(path: Path | None = None) -> PriceBook:
    """The operator's price book, or the packaged example. Raises YardError `price_book_invalid`."""
    return parse(*(rows.packaged("prices.toml", CODE) if path is None else rows.read(path, CODE)))


def parse(values: Mapping[str, Any], place: rows.Place) -> PriceBook:
    """A parsed price book. Raises YardError `price_book_invalid`."""
    sections = values.get("cards")
    rows.only(values, (*_HEAD, *_TABLES), place)
    head = rows.build(_Head, {key: value for key, value in values.items() if key not in _TABLES}, place)
    if re.fullmatch("[A-Z]{3}", head.currency) is None:
        raise place.refuse("currency", head.currency, '"USD" (ISO 4217)')
    if head.minimum_seconds > MAX_MINIMUM_SECONDS:
        raise place.refuse("minimum_seconds", head.minimum_seconds, f"<= {MAX_MINIMUM_SECONDS}")
    if not isinstance(sections, dict) or not sections:
        raise place.refuse("cards", rows.ABSENT if sections is None else sections, "[cards.RTX4090]")
    read = _cards(sections, place)
    unit_nano = _optional("unit_per_hour", head.unit_per_hour, place)
    on_demand = {model: _on_demand(row, unit_nano, at) for model, (row, at) in read.items()}
    power = _power(head, values, place)
    return PriceBook(
        currency=head.currency,
        minimum_us=head.minimum_seconds * SECOND_US,
        storage_per_gib_hour_nano=_price("storage_per_gib_hour", head.storage_per_gib_hour, place),
        on_demand_nano=on_demand,
        source=head.source,
        spot_nano=_at_most_on_demand("spot", read, on_demand),
        spot_floor_nano=_floors(on_demand, power) | _at_most_on_demand("spot_floor", read, on_demand),
        units_ppm={model: _units(row.units, at) for model, (row, at) in read.items() if row.units is not None},
        unit_per_hour_nano=unit_nano,
        stopped_per_hour_nano=_price("stopped_per_hour", head.stopped_per_hour, place),
        cpu_only_per_hour_nano=_optional("cpu_only_per_hour", head.cpu_only_per_hour, place),
        egress_per_gib_nano=_price("egress_per_gib", head.egress_per_gib, place),
        reserved=price_terms.reserved(values, place),
        tariffs=price_terms.tariffs(values, place),
        discounts=price_terms.discounts(values, place),
        power=power,
        purchase_nano={m: _price("purchase", row.purchase, at) for m, (row, at) in read.items() if row.purchase},
        idle_watts={m: row.idle_watts for m, (row, _) in read.items() if row.idle_watts is not None},
    )


def _power(head: _Head, values: Mapping[str, Any], place: rows.Place) -> Power | None:
    overhead_ppm = price_terms.percent(head.power_overhead, "power_overhead", place, 300)
    changes = price_terms.tariffs(values, place, "power_tariff")
    if head.power_per_kwh is None:
        if overhead_ppm or changes:
            raise place.refuse("power_per_kwh", rows.ABSENT, '"0.12"')
        return None
    return Power(_price("power_per_kwh", head.power_per_kwh, place), overhead_ppm, changes)


def _cards(sections: Mapping[str, Any], place: rows.Place) -> dict[str, tuple[_CardRow, rows.Place]]:
    found: dict[str, tuple[_CardRow, rows.Place]] = {}
    for name, section in sections.items():
        at = place.at(f"cards.{name[:40]}")
        model = cards.lookup(name)
        if model is None:
            raise at.refuse("card", name, cards.nearest(name))
        if model.name in found:
            raise at.refuse("card", name, f"unique (= {model.name})")
        if not isinstance(section, dict):
            raise at.refuse("card", section, f"[cards.{model.name}]")
        found[model.name] = rows.build(_CardRow, section, at), at
    return found


def _on_demand(row: _CardRow, unit_nano: int | None, at: rows.Place) -> int:
    """What the row says; or, where cards are sold by the compute unit alone, the price of a unit for each of theirs."""
    if row.on_demand is not None:
        return _price("on_demand", row.on_demand, at)
    if row.units is None or unit_nano is None:
        raise at.refuse("on_demand", rows.ABSENT, f"{_PRICE} | units + unit_per_hour")
    return -(-unit_nano * _units(row.units, at) // price_terms.WHOLE_PPM)


def _at_most_on_demand(
    name: str, read: Mapping[str, tuple[_CardRow, rows.Place]], on_demand_nano: Mapping[str, int]
) -> dict[str, int]:
    """The prices under this name, none of which may exceed the price on demand."""
    found: dict[str, int] = {}
    for model, (row, at) in read.items():
        text: str | None = getattr(row, name)
        if text is not None:
            found[model] = _price(name, text, at)
            if found[model] > on_demand_nano[model]:
                raise at.refuse(name, text, f"<= {format_price(on_demand_nano[model])}")
    return found


def _floors(on_demand_nano: Mapping[str, int], power: Power | None) -> dict[str, int]:
    """What an hour at the catalogue's full power costs, cooling included and before power tariffs; at most what the
    card costs on demand."""
    if power is None:
        return {}
    per_kw = power.per_kwh_nano * (price_terms.WHOLE_PPM + power.overhead_ppm)
    known = {model: cards.find(model).tdp_watts for model in on_demand_nano}
    return {
        model: min(on_demand_nano[model], -(-watts * per_kw // (1000 * price_terms.WHOLE_PPM)))
        for model, watts in known.items()
    }


def _units(text: str, place: rows.Place) -> int:
    """Parts per million of a compute unit."""
    return -(-_price("units", text, place) // 1000)


def _optional(field: str, text: str | None, place: rows.Place) -> int | None:
    return None if text is None else _price(field, text, place)


def _price(field: str, text: str, place: rows.Place) -> int:
    # Decimal also reads "1e3", " 1 " and "1_0"; a price book is kept to what everyone reads the same way.
    if re.fullmatch(r"[0-9]{1,7}(?:\.[0-9]{1,9})?", text) is None:
        raise place.refuse(field, text, _PRICE)
    try:
        return parse_price(text)
    except YardError:
        raise place.refuse(field, text, _PRICE) from None
