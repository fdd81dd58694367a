"""The operator's side: what cards earned, what their power cost, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gpuyard.billing.costs import By, Cost, group
from gpuyard.billing.lines import RatedLine

JOULES_A_KWH = 3_600_000


@dataclass(frozen=True, slots=True)
class CardMonth:
    """What the cards of one model did in a period, all of them together. `energy_joules` None: not measured."""

    model: str
    cards: int
    period_us: int
    energy_joules: int | None = None


@dataclass(frozen=True, slots=True)
class Margin:
    """What the cards of a model earned. Energy, and so the margin, is absent where it was not measured."""

    model: str
    cards: int
    revenue_nano: int  # prepaid time counts as it passes
    utilisation_ppm: int  # of all of their time
    energy_nano: int | None
    margin_nano: int | None

    @property
    def margin_a_card_nano(self) -> int | None:
        return None if self.margin_nano is None or not self.cards else round(Fraction(self.margin_nano, self.cards))


def margins(
    lines: Sequence[RatedLine], months: Iterable[CardMonth], power_per_kwh_nano: int, overhead_ppm: int = 0
) -> tuple[Margin, ...]:
    """By card model: revenue, utilisation, cost of energy and what is left. `overhead_ppm` is what cooling adds."""
    by_model: Mapping[str, Cost] = {cost.group: cost for cost in group(lines, By.CARD)}
    found: list[Margin] = []
    for month in months:
        cost = by_model.get(month.model)
        revenue = cost.effective_nano if cost else 0
        used = cost.card_us_ppm if cost else 0
        energy = None
        if month.energy_joules is not None:
            with_cooling = month.energy_joules * (1_000_000 + overhead_ppm)
            energy = round(Fraction(with_cooling * power_per_kwh_nano, JOULES_A_KWH * 1_000_000))
        whole = month.cards * month.period_us
        found.append(
            Margin(
                month.model, month.cards, revenue, used // whole if whole else 0, energy,
                None if energy is None else revenue - energy,
            )
        )  # fmt: skip
    return tuple(found)
