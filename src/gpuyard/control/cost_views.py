"""Costs, forecasts and margins of what the store knows."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from fractions import Fraction

from gpuyard.billing.costs import By, Forecast, forecast, group
from gpuyard.billing.energy import Draw, Reading, busy_hours, energy
from gpuyard.billing.lines import RatedLine, What, total_nano
from gpuyard.billing.margin import CardMonth, Margin, margins
from gpuyard.catalog import cards as catalogue
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.control.money import provisional, rated_lines
from gpuyard.control.months import Month
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.times import day_of
from gpuyard.model.units import DAY_US, HOUR_US
from gpuyard.store import events, meters, policies, tenants
from gpuyard.store.energy import hours as energy_hours

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


def groups_of_tenants(yard: Yard, by: By) -> dict[str, str]:
    """What each tenant is called as a project, or which organisation's it is."""
    with yard.store.read() as c:
        organisations, belongs = policies.organisations(c), policies.projects(c)
        names = {tenant.id: tenant.name for tenant in tenants.listing(c)}
    whose = {tenant_id: organisations[of] for tenant_id, of in belongs.items()}
    if by is By.ORGANISATION:
        return whose
    return {
        tenant_id: f"{whose[tenant_id]}/{name}" if tenant_id in whose else name for tenant_id, name in names.items()
    }


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
    """By card model that is here or earned something. The time of cards counts from the yard's first day on."""
    with yard.store.read() as c:
        began_us = max(month.from_us, events.first_us(c) or now_us)
    span_us = began_us, max(began_us, min(month.until_us, now_us))
    lines = lines_between(yard, None, day_of(month.from_us), day_of(month.until_us - 1))
    here: dict[str, list[str]] = defaultdict(list)
    for card in yard.roster.cards:
        here[card.model].append(card.uuid)
    with yard.store.read() as c:
        told = energy_hours(c, span_us[0] // HOUR_US, -(-span_us[1] // HOUR_US))
        used = meters.intervals(c, from_us=span_us[0], until_us=span_us[1])
        used += map(provisional, meters.open_meters(c).values())
    shares = {line.lease_id: line.share_ppm for line in lines if line.share_ppm}  # what was sent took no card
    busy = busy_hours(used, shares, span_us)
    readings = [Reading(*each) for each in told]
    months: list[CardMonth] = []
    for model in sorted(here.keys() | {line.card_model for line in lines if line.card_model}):
        cards = here[model]
        together: dict[int, int] = defaultdict(int)
        for uuid in cards:
            for hour, us_ppm in busy.get(uuid, {}).items():
                together[hour] += us_ppm
        prices = yard.prices or PriceHistory((yard.book,))
        taken = energy(cards, readings, together, _draw(yard, model), span_us, prices)
        paid = yard.book.purchase_nano.get(model)
        months.append(CardMonth(model, len(cards), span_us[1] - span_us[0], taken, paid))
    return margins(lines, months)


def _draw(yard: Yard, model: str) -> Draw | None:
    known = catalogue.lookup(model)
    return None if known is None else Draw(known.tdp_watts, yard.book.idle_watts.get(model, known.idle_watts))
