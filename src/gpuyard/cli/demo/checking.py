"""What must hold for the demo to be a success, and how long everything took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from gpuyard.sdk import types

MICRO = Fraction(1, 10**6)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should hold."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Findings:
    """Checks and durations as they come; `told` is called for each check."""

    told: Callable[[Check], None] = lambda _: None
    checks: list[Check] = field(default_factory=list[Check])
    durations_s: dict[str, float] = field(default_factory=dict[str, float])

    def check(self, name: str, ok: bool, detail: object = "") -> None:
        found = Check(name, bool(ok), str(detail))
        self.checks.append(found)
        self.told(found)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.durations_s[name] = round(time.monotonic() - begun, 3)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


def expected_total(intervals: Sequence[types.Interval]) -> Decimal:
    """The bill of these intervals by this file's own arithmetic: exact fractions, a line per lease, state, run, price
    and UTC day, rounded half to even to a millionth; and what each run of less than a minute lacks."""
    seconds: dict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    ran: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
    price: dict[tuple[str, int], Fraction] = {}
    for interval in intervals:
        if interval["state"] == "active":
            run = (interval["lease_id"], interval["run"])
            ran[run] += Fraction(interval["duration_us"], 10**6)
            price[run] = Fraction(interval["price_per_hour"])
        for day, part in _days(interval):
            key = (interval["lease_id"], interval["state"], str(interval["run"]), interval["price_per_hour"], day)
            seconds[key] += part
    total = sum((_rounded(part * Fraction(key[3]) / 3600) for key, part in seconds.items()), Fraction())
    for run, lasted in ran.items():
        if 0 < lasted < 60:
            total += _rounded((60 - lasted) * price[run] / 3600)
    return Decimal(total.numerator) / Decimal(total.denominator)


def _rounded(amount: Fraction) -> Fraction:
    return round(amount / MICRO) * MICRO  # round() of a Fraction is half to even


def _days(interval: types.Interval) -> Iterator[tuple[str, Fraction]]:
    start, end = (datetime.fromisoformat(interval[side]) for side in ("start", "end"))
    while start < end:
        midnight = datetime(start.year, start.month, start.day, tzinfo=UTC) + timedelta(days=1)
        stop = min(end, midnight)
        yield start.strftime("%Y-%m-%d"), Fraction((stop - start) // timedelta(microseconds=1), 10**6)
        start = stop
