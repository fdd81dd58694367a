"""Budgets that are used up: told once a period, and where they are hard, nothing runs or starts until the next."""

from __future__ import annotations

from sqlalchemy import Connection

from gpuyard.billing.budgets import Budget, BudgetAction, Period, is_used_up, period_of, spent_nano
from gpuyard.control.money import make_bill
from gpuyard.control.stopping import stop_all
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import format_money
from gpuyard.store import budgets, events


def budgets_of(c: Connection, tenant_id: str | None = None) -> list[Budget]:
    """The budgets of a tenant, or of all."""
    return [
        Budget(owner, Period(period), BudgetAction(action), amount, fired)
        for owner, period, action, amount, fired in budgets.listing(c, tenant_id)
    ]


def spent_of(c: Connection, yard: Yard, tenant_id: str, periods: set[Period], now_us: int) -> dict[Period, int]:
    """What a tenant spent in the present day and month."""
    if not periods:
        return {}
    lines = make_bill(c, tenant_id, prices=yard.prices).lines
    days = [(line.day, line.amount_nano) for line in lines]
    return {period: spent_nano(days, period, now_us) for period in periods}


def must_have_budget(c: Connection, yard: Yard, tenant: Tenant, now_us: int) -> None:
    """Raises YardError `budget_exhausted` where a hard budget of the tenant is used up."""
    hard = [budget for budget in budgets_of(c, tenant.id) if budget.action is BudgetAction.HARD]
    spent = spent_of(c, yard, tenant.id, {budget.period for budget in hard}, now_us)
    for budget in hard:
        if is_used_up(budget, spent[budget.period]):
            raise YardError(
                "budget_exhausted",
                tenant=tenant.name,
                period=period_of(budget.period, now_us),
                budget=format_money(budget.amount_nano, 9),
                currency=tenant.currency,
            )


def watch_budgets(yard: Yard, now_us: int) -> None:
    """Tells of every budget that is newly used up, and stops what a hard one no longer pays for."""
    with yard.store.read() as c:
        known = budgets_of(c)
        by_tenant = {b.tenant_id: {x.period for x in known if x.tenant_id == b.tenant_id} for b in known}
        spent = {tenant_id: spent_of(c, yard, tenant_id, periods, now_us) for tenant_id, periods in by_tenant.items()}
    for budget in known:
        used = spent[budget.tenant_id][budget.period]
        if not is_used_up(budget, used):
            continue
        name = period_of(budget.period, now_us)
        if budget.fired_for != name:
            _tell(yard, budget, name, used, now_us)
        if budget.action is BudgetAction.HARD:
            stop_all(yard, budget.tenant_id, "budget_exhausted", now_us)


def _tell(yard: Yard, budget: Budget, name: str, used: int, now_us: int) -> None:
    with yard.store.write() as c:
        if not budgets.fire(c, budget.tenant_id, budget.period, budget.action, name):
            return
        data = {
            "period": name,
            "action": budget.action.value,
            "budget_nano": budget.amount_nano,
            "spent_nano": used,
        }
        events.append(c, [Event("budget.used_up", budget.tenant_id, now_us, budget.tenant_id, data=data)])
