"""Budgets of tenants."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, bindparam, select, text

from gpuyard.store.ledger_tables import BUDGETS

_PUT = text(
    "INSERT INTO budgets (tenant_id, period, action, amount_nano) VALUES (:tenant, :period, :action, :amount) "
    "ON CONFLICT (tenant_id, period, action) DO UPDATE SET amount_nano = excluded.amount_nano, fired_for = NULL"
)
_COLUMNS = (BUDGETS.c.tenant_id, BUDGETS.c.period, BUDGETS.c.action, BUDGETS.c.amount_nano, BUDGETS.c.fired_for)
_ALL = select(*_COLUMNS).order_by(*_COLUMNS[:3])
_OF_TENANT = _ALL.where(BUDGETS.c.tenant_id == bindparam("tenant"))
BudgetRow = tuple[str, str, str, int, str | None]  # tenant, period, action, amount, fired for


def put(c: Connection, tenant_id: str, period: str, action: str, amount_nano: int) -> None:
    """Sets or replaces a budget; it may be told anew."""
    c.execute(_PUT, {"tenant": tenant_id, "period": period, "action": action, "amount": amount_nano})


def remove(c: Connection, tenant_id: str, period: str, action: str) -> bool:
    """Whether there was one."""
    return c.execute(BUDGETS.delete().where(_is(tenant_id, period, action))).rowcount == 1


def fire(c: Connection, tenant_id: str, period: str, action: str, name: str) -> bool:
    """Notes that it was told for a period; False where it had been."""
    unfired = BUDGETS.c.fired_for.is_distinct_from(name)
    query = BUDGETS.update().where(_is(tenant_id, period, action), unfired).values(fired_for=name)
    return c.execute(query).rowcount == 1


def listing(c: Connection, tenant_id: str | None = None) -> list[BudgetRow]:
    """Budgets of one tenant or all."""
    rows = c.execute(_ALL) if tenant_id is None else c.execute(_OF_TENANT, {"tenant": tenant_id})
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


def _is(tenant_id: str, period: str, action: str) -> Any:
    return and_(BUDGETS.c.tenant_id == tenant_id, BUDGETS.c.period == period, BUDGETS.c.action == action)
