"""Cost views: what was spent, by whom and for what, and how the month will end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import isqrt
from typing import Final

from gpuyard.billing.lines import RatedLine


class By(StrEnum):
    """What costs are added up by."""

    TENANT = "tenant"
    PROJECT = "project"  # a tenant as its organisation's
    ORGANISATION = "organisation"
    WORKLOAD = "workload"
    OFFER = "offer"
    CARD = "card"
    DAY = "day"
    OPTION = "option"
    WHAT = "what"
    COMMITMENT = "commitment"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Cost:
    """A group's sums: as billed, with prepaid time spread, by list; and how much of a card for how long."""

    group: str
    amount_nano: int
    effective_nano: int
    list_nano: int
    card_us_ppm: int  # share x microseconds

    @property
    def saved_nano(self) -> int:
        """Against the list price."""
        return self.list_nano - self.effective_nano


def group(
    lines: Iterable[RatedLine], by: By, label: str = "", of_tenants: Mapping[str, str] | None = None
) -> tuple[Cost, ...]:
    """Sums by group, the dearest first; days in their order. They add up to the sum of the lines. `label`: which one,
    where they are added up by a label. `of_tenants`: the project or organisation of each tenant that has one."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for line in lines:
        name = _group_of(line, by)
        if by is By.LABEL:
            name = dict(line.tags).get(label, "")
        elif by in (By.PROJECT, By.ORGANISATION):
            name = (of_tenants or {}).get(line.tenant_id, "")
        row = sums[name]
        row[0] += line.amount_nano
        row[1] += line.effective_nano
        row[2] += line.list_nano
        row[3] += line.share_ppm * line.duration_us if line.what.value == "active" else 0
    costs = [Cost(name, *row) for name, row in sums.items()]
    if by is By.DAY:
        return tuple(sorted(costs, key=lambda cost: cost.group))
    return tuple(sorted(costs, key=lambda cost: (-cost.amount_nano, cost.group)))


def _group_of(line: RatedLine, by: By) -> str:
    return {
        By.TENANT: line.tenant_id,
        By.WORKLOAD: line.workload_name or line.workload_id,
        By.OFFER: line.offer,
        By.CARD: line.card_model,
        By.DAY: line.day,
        By.OPTION: line.option.value,
        By.WHAT: line.what.value,
        By.COMMITMENT: line.commitment_id,
    }.get(by, "")


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a month will end. The interval holds the end in 8 of 10 months if days to come are like days gone by; absent
    where fewer than three whole days are known. It covers no launch or stop that nothing yet shows."""

    spent_nano: int
    burn_a_day_nano: int  # the mean of the days that are known
    expected_nano: int
    low_nano: int | None
    high_nano: int | None
    days_known: int
    days_left: Fraction


# Student's t for 8 of 10 (two-sided), by degrees of freedom; beyond 30 that of the normal distribution.
_T_80: Final = (
    3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372, 1.363, 1.356, 1.350, 1.345, 1.341, 1.337,
    1.333, 1.330, 1.328, 1.325, 1.323, 1.321, 1.319, 1.318, 1.316, 1.315, 1.314, 1.313, 1.311, 1.310,
)  # fmt: skip
_T_NORMAL: Final = 1.282


def forecast(spent_nano: int, whole_days_nano: Sequence[int], days_left: Fraction) -> Forecast:
    """The month's end from what is spent, what whole days cost (up to 28 of them are plenty) and the days left.

    Mean m and deviation s of n days give m x left, more or less t x s x sqrt(left + left^2/n): the second term is what
    the mean itself may be off by. Nothing comes back, so the low end is never below what is spent.
    """
    known = len(whole_days_nano)
    mean = Fraction(sum(whole_days_nano), known) if known else Fraction(0)
    expected = spent_nano + round(mean * days_left)
    low = high = None
    if known >= 3:
        variance = sum((Fraction(day) - mean) ** 2 for day in whole_days_nano) / (known - 1)
        spread = isqrt(int(variance * (days_left + days_left**2 / known)))
        t = _T_80[known - 2] if known - 2 < len(_T_80) else _T_NORMAL
        margin = round(Fraction(t) * spread)
        low, high = max(spent_nano, expected - margin), expected + margin
    return Forecast(spent_nano, round(mean), expected, low, high, known, days_left)
