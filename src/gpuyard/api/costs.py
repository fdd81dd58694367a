"""Prices compared, commitments, costs, margins and the spot market over HTTP."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import money_schemas, money_views, schemas
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.invoices import MonthQuery
from gpuyard.api.money import Day
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.billing import costs
from gpuyard.billing.comparing import Pattern, compare_offer
from gpuyard.catalog.price_terms import Upfront
from gpuyard.control import buying, cost_views
from gpuyard.control.months import Month
from gpuyard.model.times import to_text
from gpuyard.model.units import format_price
from gpuyard.store import commitments as stored

router = APIRouter(tags=["costs"])

_OF_TENANTS = (costs.By.PROJECT, costs.By.ORGANISATION)
Short = Annotated[str, Query(max_length=100)]


@router.get("/prices/compare", responses={200: {"model": money_schemas.ComparisonView}})
async def compare_prices(caller: Caller, offer: Short, hours: Annotated[int, Query(ge=1, le=8760)] = 8760) -> Response:
    """What so many hours a year of an offer cost under each purchase option, the cheapest first."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        model, share = buying.slice_of(offer)
        with caller.yard.store.read() as c:
            spot = stored.newest_rounds(c).get(offer.lower())
        book = caller.yard.book
        asked = book.price_nano(model, share, spot=True) if model in book.spot_nano else None  # where no round was yet
        found = compare_offer(book, model, share, Pattern(hours), spot[1] if spot else asked)
        return answer(money_views.comparison_view(found, offer.lower(), book))

    return await caller.read(work)


@router.get("/commitments", responses={200: {"model": schemas.Page[money_schemas.CommitmentView]}})
async def list_commitments(caller: Caller, tenant: str | None = None) -> Response:
    """What was reserved, in the order of purchase."""

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = buying.listing(c, scope)
        return page([money_views.commitment_view(each) for each in found], None)

    return await caller.read(work)


@router.post("/commitments", status_code=201, responses={201: {"model": money_schemas.CommitmentView}})
async def add_commitment(caller: Caller, body: money_schemas.CommitmentRequest) -> Response:
    """Reserves slices for a tenant at the prices of the book in force, from the next full hour on. It cannot be undone:
    a commitment is paid for whether it is used or not."""

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        caller.must(Action.COMMIT, tenant.id)
        wish = buying.Wish(body.card_model, body.offer, body.count, body.years, Upfront(body.upfront))
        bought = buying.reserve_for(caller.yard, tenant, wish, caller.identity.user)
        return answer(money_views.commitment_view(bought), 201)

    return await caller.write(work)


@router.get("/costs", responses={200: {"model": money_schemas.CostsView}})
async def show_costs(
    caller: Caller,
    by: costs.By = costs.By.WORKLOAD,
    label: Annotated[str, Query(max_length=253)] = "",
    tenant: str | None = None,
    from_: Annotated[str | None, Query(alias="from", pattern=r"^\d{4}-\d{2}-\d{2}$")] = None,
    until: Day = None,
) -> Response:
    """Costs added up by tenant, project, organisation, workload, offer, card, day, purchase option, purpose, commitment
    or a label, for the days from `from` to `until` (both included)."""

    def work() -> Response:
        scope = _scope(caller, tenant)
        lines = cost_views.lines_between(caller.yard, scope, from_, until)
        whose = cost_views.groups_of_tenants(caller.yard, by) if by in _OF_TENANTS else None
        found = costs.group(lines, by, label, whose)
        total = sum(cost.amount_nano for cost in found)
        return answer(
            {
                "currency": caller.yard.book.currency,
                "by": by.value,
                "total": money_views.format_money(total),
                "costs": [money_views.cost_view(cost) for cost in found],
            }
        )

    return await caller.write(work)


@router.get("/costs/forecast", responses={200: {"model": money_schemas.ForecastView}})
async def show_forecast(caller: Caller, tenant: str | None = None) -> Response:
    """How this month will end if days to come are like those gone by, and the interval that holds it 8 times in 10."""

    def work() -> Response:
        scope = _scope(caller, tenant)
        now_us = caller.yard.clock.now_us()
        found = cost_views.forecast_month(caller.yard, scope, now_us)
        return answer(money_views.forecast_view(found, str(Month.of(now_us)), caller.yard.book.currency))

    return await caller.write(work)


@router.get("/margin", responses={200: {"model": money_schemas.MarginsView}})
async def show_margin(caller: Caller, month: MonthQuery = None) -> Response:
    """What the cards of each model earned in a month (this one where none is named), and how much of their time."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        yard = caller.yard
        wanted = Month.parse(month) if month else Month.of(yard.clock.now_us())
        found = cost_views.margins_of(yard, wanted, yard.clock.now_us())
        return answer(
            {
                "currency": yard.book.currency,
                "month": str(wanted),
                "cards": [money_views.margin_view(each, yard.book.currency) for each in found],
            }
        )

    return await caller.write(work)


@router.get("/spot/prices", responses={200: {"model": schemas.Page[money_schemas.SpotPriceView]}})
async def list_spot_prices(caller: Caller, offer: Short | None = None) -> Response:
    """Spot prices over time, oldest first; each holds until the next."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = stored.spot_prices(c, offer.lower() if offer else None)
        currency = caller.yard.book.currency
        rows = [
            {"offer": name, "at": to_text(at_us), "price": format_price(price), "currency": currency}
            for name, changes in found.items()
            for at_us, price in changes
        ]
        return page(rows, None)

    return await caller.read(work)


@router.get("/spot/rounds", responses={200: {"model": money_schemas.SpotRoundsView}})
async def list_spot_rounds(caller: Caller, offer: Short, limit: Limit = 50) -> Response:
    """The newest rounds with all of their inputs: anyone can work the price out again (`gpuyard spot verify`)."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            bodies = stored.rounds(c, offer.lower(), limit)
        return answer({"rounds": [json.loads(body) for body in bodies]})

    return await caller.read(work)


def _scope(caller: Asking, tenant: str | None) -> str | None:
    scope = caller.scope(tenant)
    caller.must(Action.READ, scope)
    return scope
