"""Costs, forecasts and margins of what the store knows."""

from __future__ import annotations

from collections import Counter
from datetime import date
from fractions import Fraction

from gpuyard.billing.costs import By, Forecast, forecast, group
from gpuyard.billing.lines import RatedLine, What, total_nano
from gpuyard.billing.margin import CardMonth, Margin, margins
from gpuyard.control.money import rated_lines
from gpuyard.control.months import Month
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.times import day_of
from gpuyard.model.units import DAY_US

FORECAST_DAYS = 28


def lines_between(yard: Yard, tenant_id: str | None, from_day: str | None, until_day: str | None) -> list[RatedLine]:
    """Rated lines of these days, both included. Raises YardError `invalid_time`."""
    for day in (from_day, until_day):
        if day is not None:
            try:
                date.fromisoformat(day)
            except ValueError:
                raise YardError("invalid_time", value=day) from None
    with yard.store.read() as c:
        lines = rated_lines(c, yard.prices, tenant_id, yard.clock.now_us())
    return [line for line in lines if (from_day or "") <= line.day <= (until_day or "9999")]


def forecast_month(yard: Yard, tenant_id: str | None, now_us: int) -> Forecast:
    """From the whole days among the last 28. What is paid once, upfront, does not come again."""
    month = Month.of(now_us)
    with yard.store.read() as c:
        lines = rated_lines(c, yard.prices, tenant_id, now_us)
    spent = total_nano(line for line in lines if line.day >= day_of(month.from_us))
    again = [line for line in lines if not (line.what is What.RESERVATION and line.duration_us == 0)]
    by_day = {cost.group: cost.amount_nano for cost in group(again, By.DAY)}
    midnight = now_us // DAY_US * DAY_US
    first = max(midnight - FORECAST_DAYS * DAY_US, _first_day(by_day, midnight))
    days = [by_day.get(day_of(at), 0) for at in range(first, midnight, DAY_US)]
    return forecast(spent, days, Fraction(month.until_us - now_us, DAY_US))


def _first_day(by_day: dict[str, int], midnight: int) -> int:
    """The first day with costs is seldom a whole one: counting begins on the one after."""
    if not by_day:
        return midnight
    return next(
        (at + DAY_US for at in range(midnight - FORECAST_DAYS * DAY_US, midnight, DAY_US) if day_of(at) >= min(by_day)),
        midnight,
    )


def margins_of(yard: Yard, month: Month, now_us: int) -> tuple[Margin, ...]:
    """By card model that is here or earned something. Energy is absent: nothing measures it yet."""
    until_us = min(month.until_us, now_us)
    lines = lines_between(yard, None, day_of(month.from_us), day_of(month.until_us - 1))
    here = Counter(card.model for card in yard.roster.cards)
    models = sorted(here.keys() | {line.card_model for line in lines if line.card_model})
    period_us = max(0, until_us - month.from_us)
    return margins(lines, [CardMonth(model, here[model], period_us) for model in models], power_per_kwh_nano=0)
