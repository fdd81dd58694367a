"""Budgets: what a tenant means to spend in a day or a month (UTC), and what happens once it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gpuyard.model.times import day_of


class Period(StrEnum):
    """How often a budget begins anew."""

    DAY = "day"
    MONTH = "month"


class BudgetAction(StrEnum):
    """SOFT tells it; HARD also stops what runs and refuses launches until the next period."""

    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class Budget:
    """`fired_for`: the period that it was told for last, such as 2026-11."""

    tenant_id: str
    period: Period
    action: BudgetAction
    amount_nano: int
    fired_for: str | None = None


def period_of(period: Period, at_us: int) -> str:
    """The name of the period that a moment is in: 2026-11-27, or 2026-11."""
    day = day_of(at_us)
    return day if period is Period.DAY else day[:7]


def spent_nano(days: Iterable[tuple[str, int]], period: Period, at_us: int) -> int:
    """What (day, amount) pairs of a bill come to in the period of this moment."""
    name = period_of(period, at_us)
    return sum(amount for day, amount in days if day.startswith(name))


def is_used_up(budget: Budget, spent: int) -> bool:
    """Whether all of it is spent."""
    return spent >= budget.amount_nano
