"""Which intervals may be billed: told once, told alike, not negative, not of the future, and none over another.

The outcome does not depend on the order in which intervals arrive. What is not billed is named, never dropped unseen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.leases import Interval
from gpuyard.model.units import SECOND_US

FUTURE_US: Final = 300 * SECOND_US  # how far ahead of the yard's clock an end may be


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is billed, in the order of leases and sequences, and what is not, each as the refusal that tells why."""

    intervals: tuple[Interval, ...]
    refused: tuple[YardError, ...] = ()
    clamped: tuple[Interval, ...] = ()  # as they were told; what another interval had already said is cut off

    def must_be_whole(self) -> None:
        """Raises the first refusal: `usage_conflict` or `usage_invalid`."""
        for refusal in self.refused:
            raise refusal


def sift(told: Iterable[Interval], now_us: int) -> Evidence:
    """Sorts out what was told.

    Twice the same is once. Twice the same number with different contents is an alarm, and neither is billed: one of
    them is false. Where two intervals of a lease overlap, the lower sequence number keeps the time.
    """
    by_id: dict[tuple[str, int], set[Interval]] = defaultdict(set)
    for interval in told:
        by_id[interval.lease_id, interval.sequence].add(interval)
    refused: list[YardError] = []
    clamped: list[Interval] = []
    kept: list[Interval] = []
    end_us: dict[str, int] = {}
    for (lease, sequence), same in sorted(by_id.items()):
        if len(same) > 1:
            refused.append(YardError("usage_conflict", lease=lease, sequence=sequence))
            continue
        interval = next(iter(same))
        problem = _problem(interval, now_us)
        if problem is not None:
            refused.append(YardError("usage_invalid", lease=lease, sequence=sequence, problem=problem))
            continue
        start_us = max(interval.start_us, end_us.get(lease, interval.start_us))
        if start_us > interval.start_us:
            clamped.append(interval)
        end_us[lease] = max(interval.end_us, end_us.get(lease, interval.end_us))
        if start_us <= interval.end_us:
            kept.append(interval if start_us == interval.start_us else replace(interval, start_us=start_us))
    return Evidence(tuple(kept), tuple(refused), tuple(clamped))


def _problem(interval: Interval, now_us: int) -> str | None:
    if interval.end_us < interval.start_us:
        return "negative"
    if interval.end_us > now_us + FUTURE_US:
        return "future"
    return None
