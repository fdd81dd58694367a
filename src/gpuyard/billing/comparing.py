"""What the same hours cost under each purchase option, which is cheapest, and from how many hours on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

from gpuyard.billing.commitments import Commitment, at_discount
from gpuyard.catalog.price_terms import Upfront
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import HOUR_US, SHARE_WHOLE_PPM

HOURS_A_YEAR = 8760


@dataclass(frozen=True, slots=True)
class Reservation:
    """A term of so many years at a discount."""

    years: int
    discount_ppm: int
    upfront: Upfront = Upfront.NONE


@dataclass(frozen=True, slots=True)
class Pattern:
    """How much is used: hours in a year, over as many years as all terms divide."""

    hours_a_year: int

    def must_hold(self) -> None:
        """Raises YardError `invalid_pattern` for more hours than a year has, or none."""
        if not 1 <= self.hours_a_year <= HOURS_A_YEAR:
            raise YardError("invalid_pattern", field="hours", value=self.hours_a_year, expected=f"1..{HOURS_A_YEAR}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to buy the same hours. Amounts are exact nano-units over `years`."""

    option: PurchaseOption
    per_hour_nano: Fraction  # of an hour that is used
    total_nano: int
    saving_nano: int  # against on demand; negative where it costs more
    years: int
    term_years: int = 0
    upfront: Upfront | None = None
    upfront_nano: int = 0
    discount_ppm: int = 0
    by_unit: bool = False  # on demand, charged by compute units
    from_hours_a_year: int | None = None  # the fewest hours of a year with which it is no dearer than on demand


@dataclass(frozen=True, slots=True)
class Comparison:
    """All choices, the cheapest first; among equals the one that binds least."""

    currency: str
    pattern: Pattern
    years: int
    choices: tuple[Choice, ...]

    @property
    def cheapest(self) -> Choice:
        return self.choices[0]


def compare(
    hourly_nano: int,
    currency: str,
    pattern: Pattern,
    reservations: Sequence[Reservation] = (),
    spot_nano: int | None = None,
    unit_nano: int | None = None,
) -> Comparison:
    """The choices for bare prices per hour. Shorter terms are bought again until they are as long as all.

    Raises YardError `invalid_pattern`.
    """
    pattern.must_hold()
    years = lcm(*(reservation.years for reservation in reservations))  # 1 without any
    used = pattern.hours_a_year * years
    listed = hourly_nano * used
    choices = [Choice(PurchaseOption.ON_DEMAND, Fraction(hourly_nano), listed, 0, years, from_hours_a_year=None)]
    if unit_nano is not None and unit_nano != hourly_nano:
        choices.append(replace(_metered(PurchaseOption.ON_DEMAND, unit_nano, used, listed, years), by_unit=True))
    if spot_nano is not None:
        choices.append(_metered(PurchaseOption.SPOT, spot_nano, used, listed, years))
    choices += [_reserved(hourly_nano, currency, each, pattern, years) for each in reservations]
    ordered = sorted(choices, key=lambda choice: (choice.total_nano, choice.term_years, choice.upfront_nano))
    return Comparison(currency, pattern, years, tuple(ordered))


def compare_offer(book: PriceBook, model: str, share_ppm: int, pattern: Pattern, spot_nano: int | None) -> Comparison:
    """Every option that the book sells a slice under. Raises YardError `no_price`, `invalid_pattern`."""
    reservations = [
        Reservation(years, rate.discount_ppm, upfront)
        for years in (1, 3)
        for upfront in Upfront
        if (rate := book.reserved_rate(model, years, upfront)) is not None
    ]
    hourly = book.price_nano(model, share_ppm)
    return compare(hourly, book.currency, pattern, reservations, spot_nano, book.unit_price_nano(model, share_ppm))


def _metered(option: PurchaseOption, price_nano: int, used: int, listed: int, years: int) -> Choice:
    total = price_nano * used
    return Choice(option, Fraction(price_nano), total, listed - total, years)


def _reserved(hourly_nano: int, currency: str, wanted: Reservation, pattern: Pattern, years: int) -> Choice:
    one = _commitment(hourly_nano, currency, wanted)
    terms = years // wanted.years
    used = pattern.hours_a_year * years
    total = one.total_nano * terms
    a_year = Fraction(one.total_nano, wanted.years)
    pays = -(-a_year // hourly_nano) if hourly_nano else 0
    return Choice(
        option=PurchaseOption.RESERVED,
        per_hour_nano=Fraction(total, used),
        total_nano=total,
        saving_nano=hourly_nano * used - total,
        years=years,
        term_years=wanted.years,
        upfront=wanted.upfront,
        upfront_nano=one.upfront_nano,
        discount_ppm=wanted.discount_ppm,
        from_hours_a_year=int(pays) if pays <= HOURS_A_YEAR else None,
    )


def _commitment(hourly_nano: int, currency: str, wanted: Reservation) -> Commitment:
    return at_discount(
        "", "", "", SHARE_WHOLE_PPM, hourly_nano, currency, wanted.years, wanted.upfront, wanted.discount_ppm, HOUR_US
    )
