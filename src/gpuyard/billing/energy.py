"""Energy of cards and what it cost, hour by hour: measured by their own counters where these were read, and estimated
from the catalogue's watts for the rest, which is always told apart.

The estimate: the part of a card that is leased draws that part of its power limit, the rest draws idle power. That is
what a card draws at most where programs are busy, and too much where they are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gpuyard.catalog.price_history import PriceHistory
from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState
from gpuyard.model.units import HOUR_US, SHARE_WHOLE_PPM

MILLIJOULES_A_KWH: Final = 3_600_000_000
IDLE_PARTS: Final = 10  # idle power is taken to be a tenth of the limit where nobody says what it is


@dataclass(frozen=True, slots=True)
class Reading:
    """What the counter of one card said it took in an hour (counted from 1970), and of how much of the hour."""

    card_uuid: str
    hour: int
    millijoules: int
    covered_us: int


@dataclass(frozen=True, slots=True)
class Draw:
    """What a card of a model draws."""

    limit_watts: int
    idle_watts: int | None = None

    @property
    def idle(self) -> Fraction:
        """As it is known, or a tenth of the limit."""
        return Fraction(self.limit_watts, IDLE_PARTS) if self.idle_watts is None else Fraction(self.idle_watts)


@dataclass(frozen=True, slots=True)
class Energy:
    """Of all cards of a model in a period. `cost_nano` None: the price book does not say what power costs."""

    millijoules: int
    measured_ppm: int
    cost_nano: int | None


def energy(
    cards: Sequence[str],
    readings: Iterable[Reading],
    busy: Mapping[int, int],
    draw: Draw | None,
    span_us: tuple[int, int],
    prices: PriceHistory | None,
) -> Energy | None:
    """What these cards of one model took in a span. `busy`: by hour the share x microseconds that was leased of them.
    None where something is to be estimated and nothing is known of the model."""
    measured: dict[int, int] = defaultdict(int)
    covered: dict[int, int] = defaultdict(int)
    known = frozenset(cards)
    for reading in readings:
        if reading.card_uuid in known:
            measured[reading.hour] += reading.millijoules
            covered[reading.hour] += reading.covered_us
    total, cost, whole_us, covered_us = Fraction(0), Fraction(0), 0, 0
    priced = True
    for hour, length_us in _hours(span_us):
        card_us = len(cards) * length_us
        seen_us = min(covered[hour], card_us)
        taken = Fraction(measured[hour])
        if seen_us < card_us:
            if draw is None:
                return None
            taken += _estimate(card_us, busy.get(hour, 0), draw) * Fraction(card_us - seen_us, card_us)
        book = prices.known_at(hour * HOUR_US) if prices is not None else None
        if book is None or book.power is None:
            priced = False
        else:
            cost += taken * book.power.per_kwh_at(hour) / MILLIJOULES_A_KWH
        total, whole_us, covered_us = total + taken, whole_us + card_us, covered_us + seen_us
    if not whole_us:
        return None
    return Energy(round(total), covered_us * SHARE_WHOLE_PPM // whole_us, round(cost) if priced else None)


def _estimate(card_us: int, busy_us_ppm: int, draw: Draw) -> Fraction:
    """Millijoules of cards over a time: a watt for a microsecond is a thousandth of one."""
    busy_us = min(Fraction(busy_us_ppm, SHARE_WHOLE_PPM), Fraction(card_us))
    return (busy_us * draw.limit_watts + (card_us - busy_us) * draw.idle) / 1000


def _hours(span_us: tuple[int, int]) -> list[tuple[int, int]]:
    """Hours that a span touches, and how much of each lies in it."""
    from_us, until_us = span_us
    found: list[tuple[int, int]] = []
    for hour in range(from_us // HOUR_US, -(-until_us // HOUR_US)):
        start_us, end_us = max(from_us, hour * HOUR_US), min(until_us, (hour + 1) * HOUR_US)
        if end_us > start_us:
            found.append((hour, end_us - start_us))
    return found


def busy_hours(
    intervals: Iterable[Interval], share_ppm: Mapping[str, int], span_us: tuple[int, int]
) -> dict[str, dict[int, int]]:
    """By card and hour the share x microseconds that leases ran on it. `share_ppm`: by lease, all of its slices."""
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for interval in intervals:
        if interval.state is not LeaseState.ACTIVE or not interval.card_uuids:
            continue
        share = share_ppm.get(interval.lease_id, 0) // len(interval.card_uuids)
        inside = max(interval.start_us, span_us[0]), min(interval.end_us, span_us[1])
        for hour, length_us in _hours(inside):
            for uuid in interval.card_uuids:
                found[uuid][hour] += share * length_us
    return found
