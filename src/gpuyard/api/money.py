"""Leases, intervals and bills over HTTP."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller, decode_cursor, encode_cursor
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.billing.rating import Line, total_nano
from gpuyard.control.money import make_bill
from gpuyard.model.errors import YardError
from gpuyard.model.states import LeaseState
from gpuyard.model.times import day_of, from_text, to_text
from gpuyard.model.units import format_money
from gpuyard.store import leases, meters, workloads

router = APIRouter(tags=["money"])

Day = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$")]


@router.get("/leases", responses={200: {"model": schemas.Page[schemas.LeaseView]}})
async def list_leases(
    caller: Caller,
    state: Annotated[list[LeaseState] | None, Query()] = None,
    tenant: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """Leases, newest first."""
    before = decode_cursor(cursor, "leases", 1)

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = leases.page(c, scope, state, limit, before[0] if before else None)
            owners = [workloads.get(c, workload_id) for workload_id in {lease.workload_id for lease in found}]
        runtimes = {owner.id: owner.runtime for owner in owners if owner is not None}
        more = encode_cursor("leases", found[-1].id) if len(found) == limit else None
        told = [views.lease_view(one, runtimes.get(one.workload_id, "--"), caller.language) for one in found]
        return page(told, more)

    return await caller.read(work)


@router.get("/intervals", responses={200: {"model": schemas.Page[schemas.IntervalView]}})
async def list_intervals(
    caller: Caller,
    tenant: str | None = None,
    workload: str | None = None,
    from_: Annotated[str | None, Query(alias="from")] = None,
    until: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """The immutable record: which lease was in which state, from when to when, and who proves it."""
    after = decode_cursor(cursor, "intervals", 2)

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = meters.intervals(
                c,
                scope,
                _workload_id(caller, workload, scope),
                from_text(from_) if from_ else None,
                from_text(until) if until else None,
                _position(after),
                limit,
            )
        more = encode_cursor("intervals", found[-1].lease_id, found[-1].sequence) if len(found) == limit else None
        return page([views.interval_view(interval) for interval in found], more)

    return await caller.read(work)


def _position(after: list[str] | None) -> tuple[str, int] | None:
    """Raises YardError `invalid_cursor` for a sequence that no lease has."""
    if after is None:
        return None
    lease_id, sequence = after
    if not (sequence.isascii() and sequence.isdecimal() and len(sequence) < 19):
        raise YardError("invalid_cursor", value=sequence[:80])
    return lease_id, int(sequence)


def _workload_id(caller: Asking, workload: str | None, scope: str | None) -> str | None:
    """The id of a workload named in a query. A removed one still has its bill, by id."""
    if workload is None:
        return None
    return caller.workload(Action.READ, workload, scope).id


@router.get("/bill", responses={200: {"model": schemas.BillView}})
async def show_bill(
    caller: Caller,
    tenant: str | None = None,
    workload: str | None = None,
    day: Day = None,
    from_: Annotated[str | None, Query(alias="from", pattern=r"^\d{4}-\d{2}-\d{2}$")] = None,
    until: Day = None,
) -> Response:
    """The bill of a tenant, of one workload, of a day or of the days from `from` to `until` (both included)."""

    for wanted in (day, from_, until):
        _check_day(wanted)

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            bill = make_bill(c, scope, _workload_id(caller, workload, scope), caller.yard.prices)
        first, last = day or from_ or "", day or until or "9999"
        return answer(bill_view(caller, [line for line in bill.lines if first <= line.day <= last]))

    return await caller.read(work)


def _check_day(day: str | None) -> None:
    """Raises YardError `invalid_time` for a day that no calendar has."""
    if day is not None:
        try:
            date.fromisoformat(day)
        except ValueError:
            raise YardError("invalid_time", value=day) from None


def bill_view(caller: Asking, lines: list[Line]) -> views.View:
    by_workload: dict[str, int] = defaultdict(int)
    by_day: dict[str, int] = defaultdict(int)
    for line in lines:
        by_workload[line.workload_name] += line.amount_nano
        by_day[line.day] += line.amount_nano
    now_us = caller.yard.clock.now_us()
    return {
        "currency": caller.yard.book.currency,
        "total": format_money(total_nano(lines)),
        "lines": [views.line_view(line) for line in lines],
        "by_workload": {name: format_money(amount) for name, amount in sorted(by_workload.items())},
        "by_day": {day: format_money(by_day[day]) for day in sorted(by_day)},
        "open_until": to_text(now_us),
        "today": day_of(now_us),
    }
