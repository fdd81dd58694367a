"""Buying a card against renting one: what an hour of it costs its owner, and from how many hours on buying pays.

    cost over life = price - resale + years x (power x overhead x hours used x price per kWh / 1000 + upkeep)
An owner pays the price whether the card is used or not; energy only for hours of use, and idle power for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gpuyard.model.errors import YardError

HOURS_A_YEAR: Final = 8760


@dataclass(frozen=True, slots=True)
class Purchase:
    """A card and what keeping it costs. Money in nano-units; `overhead_ppm` is what cooling and losses add to power."""

    price_nano: int
    years: int
    watts: int
    kwh_nano: int
    idle_watts: int = 0
    overhead_ppm: int = 0
    upkeep_a_year_nano: int = 0  # rack, network, people
    resale_nano: int = 0

    def must_hold(self) -> None:
        """Raises YardError `invalid_pattern`."""
        if not 1 <= self.years <= 20:
            raise YardError("invalid_pattern", field="years", value=self.years, expected="1..20")
        if self.resale_nano > self.price_nano:
            raise YardError("invalid_pattern", field="resale", value=self.resale_nano, expected="<= price")
        if self.idle_watts > self.watts:
            raise YardError("invalid_pattern", field="idle_watts", value=self.idle_watts, expected=f"<= {self.watts}")


@dataclass(frozen=True, slots=True)
class Ownership:
    """Over the card's life, for so many hours of use a year."""

    total_nano: Fraction
    energy_nano: Fraction
    per_hour_nano: Fraction
    rent_nano: Fraction  # what the same hours cost to rent
    saving_nano: Fraction
    from_hours_a_year: int | None  # from how many hours of a year on owning is no dearer; None: never
    pays_back_after_hours: int | None  # of use at this rate, counted from the purchase; None: not within its life


def own(purchase: Purchase, hours_a_year: int, rent_per_hour_nano: int) -> Ownership:
    """Raises YardError `invalid_pattern`."""
    purchase.must_hold()
    if not 1 <= hours_a_year <= HOURS_A_YEAR:
        raise YardError("invalid_pattern", field="hours", value=hours_a_year, expected=f"1..{HOURS_A_YEAR}")
    fixed = _fixed(purchase)
    running = _energy_an_hour(purchase, purchase.watts - purchase.idle_watts)  # beyond idling
    idle = HOURS_A_YEAR * _energy_an_hour(purchase, purchase.idle_watts)
    used = hours_a_year * purchase.years
    total = fixed + used * running
    rent = Fraction(rent_per_hour_nano * used)
    gain = rent_per_hour_nano - running  # by every hour that is used
    even = -(-fixed // (gain * purchase.years)) if gain > 0 else None
    return Ownership(
        total_nano=total,
        energy_nano=used * running + purchase.years * idle,
        per_hour_nano=total / used,
        rent_nano=rent,
        saving_nano=rent - total,
        from_hours_a_year=max(1, int(even)) if even is not None and even <= HOURS_A_YEAR else None,
        pays_back_after_hours=_pays_back(purchase, hours_a_year, gain),
    )


def _fixed(purchase: Purchase) -> Fraction:
    """What is paid over the card's life whether it is used or not."""
    a_year = purchase.upkeep_a_year_nano + HOURS_A_YEAR * _energy_an_hour(purchase, purchase.idle_watts)
    return purchase.price_nano - purchase.resale_nano + purchase.years * a_year


def _energy_an_hour(purchase: Purchase, watts: int) -> Fraction:
    return Fraction(watts * purchase.kwh_nano * (1_000_000 + purchase.overhead_ppm), 1000 * 1_000_000)


def _pays_back(purchase: Purchase, hours_a_year: int, gain_nano: Fraction) -> int | None:
    upkeep = purchase.upkeep_a_year_nano + HOURS_A_YEAR * _energy_an_hour(purchase, purchase.idle_watts)
    a_year = gain_nano * hours_a_year - upkeep
    if a_year <= 0:
        return None
    hours = -(-(purchase.price_nano - purchase.resale_nano) * hours_a_year // a_year)
    return int(hours) if hours <= hours_a_year * purchase.years else None
