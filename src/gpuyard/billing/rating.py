"""Intervals -> lines, exactly.

A line is what one lease costs in one state, run, price and UTC day. Its amount is `microseconds x nano-price per hour`,
an exact integer over 3.6 x 10**9, rounded once, half to even, to a millionth of the currency; a bill is the sum of its
rounded lines. Because lines are cut only at midnight UTC, a state, run or price change, any other splitting of the same
time gives the same bill.

Each run of a lease pays for at least the minimum (60 s unless its terms say otherwise): what is missing becomes a line
of its own, once the run has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState
from gpuyard.model.times import day_of
from gpuyard.model.units import DAY_US, HOUR_US

MICRO_NANO = 1000  # a millionth of the currency, in nano-units: the place that lines are rounded to


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill. `amount_nano` is a multiple of 1000."""

    tenant_id: str
    workload_id: str
    workload_name: str
    lease_id: str
    offer: str
    day: str
    what: str  # active, cpu_only, stopped, minimum; egress where it comes from elsewhere
    run: int
    duration_us: int
    price_per_hour_nano: int
    amount_nano: int
    currency: str
    origin: str = ""  # which incident or run a credit comes from
    quantity_bytes: int = 0  # egress, whose price is that of a GiB


def amount_nano(duration_us: int, price_per_hour_nano: int) -> int:
    """What a duration costs, rounded half to even to a millionth of the currency."""
    numerator = duration_us * price_per_hour_nano
    denominator = HOUR_US * MICRO_NANO
    whole, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole % 2):
        whole += 1
    return whole * MICRO_NANO


def rate(intervals: Iterable[Interval], still_open: frozenset[tuple[str, int]] = frozenset()) -> tuple[Line, ...]:
    """The lines of these intervals, oldest day first.

    `still_open` holds the (lease id, run) pairs that go on: their minimum is not yet known to be missed.
    """
    durations: dict[tuple[str, str, int, int, str], int] = defaultdict(int)
    origin: dict[str, Interval] = {}
    runs: dict[tuple[str, int], list[Interval]] = defaultdict(list)
    for interval in intervals:
        origin[interval.lease_id] = interval
        if interval.runs:
            runs[interval.lease_id, interval.run].append(interval)
        if interval.price_per_hour_nano == 0:
            continue
        for day, duration_us in _by_day(interval):
            key = (interval.lease_id, _what(interval), interval.run, interval.price_per_hour_nano, day)
            durations[key] += duration_us
    lines = [
        _line(origin[lease], day, what, run, duration_us, price)
        for (lease, what, run, price, day), duration_us in durations.items()
    ]
    lines += [_minimum(parts) for key, parts in runs.items() if key not in still_open and _missing_us(parts) > 0]
    return tuple(sorted(lines, key=_place))


def _what(interval: Interval) -> str:
    if interval.cpu_only:
        return "cpu_only"
    return LeaseState.ACTIVE.value if interval.runs else interval.state.value


def _place(line: Line) -> tuple[object, ...]:
    return line.day, line.workload_id, line.lease_id, line.run, line.what, line.price_per_hour_nano


def total_nano(lines: Iterable[Line]) -> int:
    """The sum of the rounded lines."""
    return sum(line.amount_nano for line in lines)


def _by_day(interval: Interval) -> list[tuple[str, int]]:
    pieces: list[tuple[str, int]] = []
    start = interval.start_us
    while start < interval.end_us:
        end = min(interval.end_us, (start // DAY_US + 1) * DAY_US)
        pieces.append((day_of(start), end - start))
        start = end
    return pieces


def _missing_us(parts: Sequence[Interval]) -> int:
    ran_us = sum(part.duration_us for part in parts)
    return max(part.minimum_us for part in parts) - ran_us if ran_us > 0 else 0


def _minimum(parts: Sequence[Interval]) -> Line:
    last = max(parts, key=lambda part: (part.end_us, part.sequence))
    return _line(last, day_of(last.end_us), "minimum", last.run, _missing_us(parts), last.price_per_hour_nano)


def _line(origin: Interval, day: str, what: str, run: int, duration_us: int, price_nano: int) -> Line:
    return Line(
        tenant_id=origin.tenant_id,
        workload_id=origin.workload_id,
        workload_name=origin.workload_name,
        lease_id=origin.lease_id,
        offer=origin.offer,
        day=day,
        what=what,
        run=run,
        duration_us=duration_us,
        price_per_hour_nano=price_nano,
        amount_nano=amount_nano(duration_us, price_nano),
        currency=origin.currency,
    )
