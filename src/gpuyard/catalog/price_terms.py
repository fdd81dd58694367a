"""What a price book may say beside its prices: reservations, tariffs by the clock, discounts of tenants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from gpuyard.catalog import cards, rows
from gpuyard.model.units import DAY_US, HOUR_US

WHOLE_PPM: Final = 1_000_000
YEAR_US: Final = 365 * DAY_US  # a term is counted in days of 24 hours: 1 year is 31,536,000 s, 3 years 94,608,000 s
QUARTER_US: Final = HOUR_US // 4  # tariffs begin and end on quarters of an hour, as every zone's offset is one
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):(00|15|30|45)|24:00")


class Upfront(StrEnum):
    """How much of a reservation is paid on its first day."""

    NONE = "none"
    PARTIAL = "partial"
    ALL = "all"


UPFRONT_PPM: Final[Mapping[Upfront, int]] = {Upfront.NONE: 0, Upfront.PARTIAL: 500_000, Upfront.ALL: WHOLE_PPM}


@dataclass(frozen=True, slots=True)
class ReservedRate:
    """What a term of `years` is cheaper than on demand, paid as `upfront` says; for these cards, or for all."""

    years: int
    upfront: Upfront
    discount_ppm: int
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price factor by the clock on a wall of its zone, from minute to minute of a day; over midnight where `until`
    is not after `from`. Days are those on which it begins, 0 is Monday."""

    name: str
    zone: str
    from_minute: int
    until_minute: int
    days: tuple[int, ...]
    factor_ppm: int

    def holds(self, moment_us: int, zone: ZoneInfo) -> bool:
        """Whether the wall clock at this moment stands within the tariff. An hour that a change of the clock skips is
        not charged, one that it repeats is charged twice: the wall clock decides."""
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).astimezone(zone)
        minute = local.hour * 60 + local.minute
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if self.from_minute < self.until_minute:
            return self.from_minute <= minute < self.until_minute and today in self.days
        return (minute >= self.from_minute and today in self.days) or (
            minute < self.until_minute and yesterday in self.days
        )


@dataclass(frozen=True, slots=True)
class Discount:
    """What a tenant (by name) pays less than the list, for these cards, or for all."""

    tenant: str
    discount_ppm: int
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReservedRow:
    years: int
    upfront: str = "none"
    discount: str
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _TariffRow:
    name: str
    zone: str
    from_: str
    until: str
    days: tuple[str, ...] = DAYS
    discount: str | None = None
    surcharge: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _DiscountRow:
    tenant: str
    discount: str
    cards: tuple[str, ...] = ()


def reserved(values: Mapping[str, Any], place: rows.Place) -> tuple[ReservedRate, ...]:
    """The rows of `[[reserved]]`. Raises the book's refusal, also where two rows speak of the same card and term."""
    found: list[ReservedRate] = []
    seen: set[tuple[int, str, str]] = set()
    for row, at in _rows(values, "reserved", place):
        read = rows.build(_ReservedRow, row, at)
        if read.years not in (1, 3):
            raise at.refuse("years", read.years, "1 | 3")
        if read.upfront not in set(Upfront):
            raise at.refuse("upfront", read.upfront, " | ".join(Upfront))
        rate = ReservedRate(
            read.years, Upfront(read.upfront), percent(read.discount, "discount", at), models(read.cards, at)
        )
        for model in rate.cards or ("*",):
            if (rate.years, rate.upfront, model) in seen:
                raise at.refuse("reserved", f"{rate.years}, {rate.upfront}, {model}", "unique")
            seen.add((rate.years, rate.upfront, model))
        found.append(rate)
    return tuple(found)


def tariffs(values: Mapping[str, Any], place: rows.Place, key: str = "tariff") -> tuple[Tariff, ...]:
    """The rows of `[[tariff]]` (or another `key`); where two hold at once, the first one in the file does."""
    found: list[Tariff] = []
    for row, at in _rows(values, key, place):
        read = rows.build(_TariffRow, {("from_" if key == "from" else key): value for key, value in row.items()}, at)
        if any(read.name == other.name for other in found):
            raise at.refuse("name", read.name, "unique")
        zone_of(read.zone, at)
        found.append(
            Tariff(
                name=read.name,
                zone=read.zone,
                from_minute=_minute(read.from_, "from", at) % 1440,
                until_minute=_minute(read.until, "until", at),
                days=tuple(_day(day, at) for day in read.days),
                factor_ppm=_factor(read, at),
            )
        )
    return tuple(found)


def discounts(values: Mapping[str, Any], place: rows.Place) -> tuple[Discount, ...]:
    """The rows of `[[discount]]`; those that name a card before those that speak of all."""
    found: list[Discount] = []
    for row, at in _rows(values, "discount", place):
        read = rows.build(_DiscountRow, row, at)
        discount = Discount(read.tenant, percent(read.discount, "discount", at), models(read.cards, at))
        if any(d.tenant == discount.tenant and set(d.cards or "*") & set(discount.cards or "*") for d in found):
            raise at.refuse("tenant", read.tenant, "unique")
        found.append(discount)
    return tuple(found)


def zone_of(name: str, place: rows.Place) -> ZoneInfo:
    """The IANA time zone of that name. Raises the book's refusal for one that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown names are KeyErrors; paths and folders are the others
        raise place.refuse("zone", name, '"Europe/Berlin" (IANA; pip install tzdata)') from None


def percent(text: str, field: str, place: rows.Place, most: int = 100) -> int:
    """Parts per million of `12.5%`."""
    match = _PERCENT.fullmatch(text)
    if match is None or Decimal(match[1]) > most:
        raise place.refuse(field, text, f'"12.5%" (0%..{most}%)')
    return int(Decimal(match[1]) * 10_000)


def models(names: tuple[str, ...], place: rows.Place) -> tuple[str, ...]:
    """Card models by any of their names."""
    found: list[str] = []
    for name in names:
        model = cards.lookup(name)
        if model is None:
            raise place.refuse("cards", name, cards.nearest(name))
        found.append(model.name)
    return tuple(found)


def less(price_nano: int, discount_ppm: int) -> int:
    """A price less its discount, rounded up to a whole nano as all prices are."""
    return -(-price_nano * (WHOLE_PPM - discount_ppm) // WHOLE_PPM)


def times(price_nano: int, factor_ppm: int) -> int:
    """A price times a factor, rounded up to a whole nano."""
    return -(-price_nano * factor_ppm // WHOLE_PPM)


def _rows(values: Mapping[str, Any], key: str, place: rows.Place) -> list[tuple[Mapping[str, Any], rows.Place]]:
    return rows.tables(values, key, place) if key in values else []


def _minute(text: str, field: str, place: rows.Place) -> int:
    if _CLOCK.fullmatch(text) is None:
        raise place.refuse(field, text, '"22:15" (00:00..24:00, :00 :15 :30 :45)')
    return int(text[:2]) * 60 + int(text[3:])


def _day(text: str, place: rows.Place) -> int:
    if text not in DAYS:
        raise place.refuse("days", text, " | ".join(DAYS))
    return DAYS.index(text)


def _factor(row: _TariffRow, place: rows.Place) -> int:
    if (row.discount is None) == (row.surcharge is None):
        raise place.refuse("discount", rows.ABSENT if row.discount is None else row.discount, "discount | surcharge")
    if row.discount is not None:
        return WHOLE_PPM - percent(row.discount, "discount", place)
    return WHOLE_PPM + percent(str(row.surcharge), "surcharge", place, 900)
