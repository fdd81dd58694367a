"""The operator's side: what cards earned, what their power cost, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gpuyard.billing.costs import By, Cost, group
from gpuyard.billing.energy import Energy
from gpuyard.billing.lines import RatedLine
from gpuyard.model.units import HOUR_US, SHARE_WHOLE_PPM


@dataclass(frozen=True, slots=True)
class CardMonth:
    """What the cards of one model did in a period, all of them together. `energy` None: neither measured nor known;
    `purchase_nano` is what one of them cost."""

    model: str
    cards: int
    period_us: int
    energy: Energy | None = None
    purchase_nano: int | None = None


@dataclass(frozen=True, slots=True)
class Margin:
    """What the cards of a model earned. What their power cost, and so the margin, is absent where it is not known."""

    model: str
    cards: int
    revenue_nano: int  # prepaid time counts as it passes
    utilisation_ppm: int  # of all of their time
    energy_millijoules: int | None
    measured_ppm: int | None  # how much of the time energy was measured; estimated in the rest
    energy_nano: int | None
    margin_nano: int | None
    break_even_hours: int | None  # of use of one card, at what it leaves now, until it has paid for itself

    @property
    def margin_a_card_nano(self) -> int | None:
        return None if self.margin_nano is None or not self.cards else round(Fraction(self.margin_nano, self.cards))


def margins(lines: Sequence[RatedLine], months: Iterable[CardMonth]) -> tuple[Margin, ...]:
    """By card model: revenue, utilisation, cost of energy and what is left."""
    by_model: Mapping[str, Cost] = {cost.group: cost for cost in group(lines, By.CARD)}
    return tuple(_margin(month, by_model.get(month.model)) for month in months)


def _margin(month: CardMonth, cost: Cost | None) -> Margin:
    revenue = cost.effective_nano if cost else 0
    used = cost.card_us_ppm if cost else 0
    whole = month.cards * month.period_us
    energy = month.energy
    energy_nano = None if energy is None or energy.cost_nano is None else energy.cost_nano
    margin = None if energy_nano is None else revenue - energy_nano
    return Margin(
        model=month.model,
        cards=month.cards,
        revenue_nano=revenue,
        utilisation_ppm=used // whole if whole else 0,
        energy_millijoules=None if energy is None else energy.millijoules,
        measured_ppm=None if energy is None else energy.measured_ppm,
        energy_nano=energy_nano,
        margin_nano=margin,
        break_even_hours=_break_even(month.purchase_nano, margin, used),
    )


def _break_even(purchase_nano: int | None, margin_nano: int | None, used_us_ppm: int) -> int | None:
    """None where a card leaves nothing, or what it cost is not known."""
    if purchase_nano is None or margin_nano is None or margin_nano <= 0 or not used_us_ppm:
        return None
    return int(-(-purchase_nano * Fraction(used_us_ppm, HOUR_US * SHARE_WHOLE_PPM) // margin_nano))
