"""Intervals cut where something changes: the day, the tariff, the spot price, a commitment's hour, an incident."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpuyard.billing.conditions import RECLAIM_FREE_US, Conditions, LeaseFacts
from gpuyard.billing.lines import What
from gpuyard.catalog.price_terms import QUARTER_US, less, times
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.leases import Interval, PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.times import day_of
from gpuyard.model.units import DAY_US, HOUR_US

NO_FACTS = LeaseFacts()


@dataclass(frozen=True, slots=True)
class Credit:
    """Why a stretch of time is given back."""

    what: What
    origin: str
    from_us: int
    until_us: int
    run: int | None = None  # None: whatever run

    def touches(self, interval: Interval) -> bool:
        """Whether any of the interval's time is given back."""
        of_run = self.run in (None, interval.run)
        return of_run and self.from_us < interval.end_us and self.until_us > interval.start_us


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one interval in which nothing changes."""

    interval: Interval
    facts: LeaseFacts
    what: What
    start_us: int
    end_us: int
    price_nano: int
    credit: Credit | None

    @property
    def day(self) -> str:
        return day_of(self.start_us)

    @property
    def coverable(self) -> bool:
        """Whether a commitment may pay for it."""
        return (
            self.what is What.ACTIVE
            and self.facts.option is not PurchaseOption.SPOT
            and self.facts.share_ppm > 0
            and self.credit is None
        )


class Cutter:
    """Cuts intervals under given conditions."""

    def __init__(self, intervals: Sequence[Interval], conditions: Conditions) -> None:
        self._conditions = conditions
        self._granted = _granted(intervals)
        self._credits = _credits(intervals, conditions)
        self._committed = {commitment.tenant_id for commitment in conditions.commitments}

    def pieces(self, interval: Interval) -> Iterator[Piece]:
        """Its stretches, in order. A time that costs nothing by list has none."""
        what = self.what(interval)
        if what is None or interval.price_per_hour_nano == 0 or interval.duration_us == 0:
            return
        facts = self.facts(interval)
        book = self._book(interval) if what is What.ACTIVE and facts.option is not PurchaseOption.SPOT else None
        given_back = self._given_back(interval) if what is not What.STOPPED else []
        for start_us, end_us in pairwise(self._edges(interval, what, facts, book, given_back)):
            credit = next((credit for credit in given_back if credit.from_us <= start_us < credit.until_us), None)
            price = self._price(interval, what, facts, book, start_us)
            yield Piece(interval, facts, what, start_us, end_us, price, credit)

    def price_at_end(self, interval: Interval) -> int:
        """What the interval's last moment is charged at."""
        facts = self.facts(interval)
        what = self.what(interval) or What.ACTIVE
        book = self._book(interval) if what is What.ACTIVE and facts.option is not PurchaseOption.SPOT else None
        return self._price(interval, what, facts, book, max(interval.start_us, interval.end_us - 1))

    def credited(self, interval: Interval) -> bool:
        """Whether any of the interval's time is given back."""
        return bool(self._given_back(interval))

    def _given_back(self, interval: Interval) -> list[Credit]:
        return [credit for credit in self._credits.get(interval.lease_id, ()) if credit.touches(interval)]

    def facts(self, interval: Interval) -> LeaseFacts:
        return self._conditions.facts.get(interval.lease_id, NO_FACTS)

    def what(self, interval: Interval) -> What | None:
        """None for a state that costs nothing."""
        if interval.state is LeaseState.STOPPED:
            return What.STOPPED
        if not interval.runs:
            return None
        return What.CPU_ONLY if interval.cpu_only else What.ACTIVE

    def _book(self, interval: Interval) -> PriceBook | None:
        """The book of the moment at which this run was granted: later ones do not touch it."""
        history = self._conditions.history
        return history.known_at(self._granted[interval.lease_id, interval.run]) if history is not None else None

    def _price(self, interval: Interval, what: What, facts: LeaseFacts, book: PriceBook | None, at_us: int) -> int:
        price = interval.price_per_hour_nano
        if what is not What.ACTIVE:
            return price
        if facts.option is PurchaseOption.SPOT:
            spot = self._conditions.spot.get(interval.offer)
            return min(price, spot.at(at_us, price) * facts.slices) if spot is not None else price
        if book is None:
            return price
        tariff = times(price, book.factor_ppm(at_us)) if book.tariffs else price
        discount_ppm = book.discount_ppm(facts.tenant_name, facts.card_model) if book.discounts else 0
        return less(tariff, discount_ppm) if discount_ppm else tariff

    def _edges(
        self, interval: Interval, what: What, facts: LeaseFacts, book: PriceBook | None, given_back: Sequence[Credit]
    ) -> list[int]:
        start_us, end_us = interval.start_us, interval.end_us
        step_us = DAY_US
        if what is What.ACTIVE and facts.share_ppm and interval.tenant_id in self._committed:
            step_us = HOUR_US
        edges = {start_us, end_us, *range((start_us // step_us + 1) * step_us, end_us, step_us)}
        if book is not None and book.tariffs:
            edges |= _tariff_changes(book, start_us, end_us)
        if what is What.ACTIVE and facts.option is PurchaseOption.SPOT and interval.offer in self._conditions.spot:
            edges.update(self._conditions.spot[interval.offer].changes_between(start_us, end_us))
        for credit in given_back:
            edges.update(edge for edge in (credit.from_us, credit.until_us) if start_us < edge < end_us)
        return sorted(edges)


def _tariff_changes(book: PriceBook, start_us: int, end_us: int) -> set[int]:
    quarters = range(start_us // QUARTER_US + 1, -(-end_us // QUARTER_US))
    factors = [book.factor_ppm((quarters.start - 1) * QUARTER_US)]
    factors += [book.factor_ppm(quarter * QUARTER_US) for quarter in quarters]
    return {
        quarter * QUARTER_US
        for quarter, (before, after) in zip(quarters, pairwise(factors), strict=True)
        if before != after
    }


def _granted(intervals: Iterable[Interval]) -> dict[tuple[str, int], int]:
    """When each run began to be counted, which is when its terms were fixed."""
    found: dict[tuple[str, int], int] = {}
    for interval in intervals:
        key = (interval.lease_id, interval.run)
        found[key] = min(found.get(key, interval.start_us), interval.start_us)
    return found


def _credits(intervals: Iterable[Interval], conditions: Conditions) -> Mapping[str, list[Credit]]:
    found: dict[str, list[Credit]] = defaultdict(list)
    for fault in sorted(conditions.faults, key=lambda fault: (fault.lease_id, fault.from_us, fault.incident_id)):
        found[fault.lease_id].append(Credit(What.FAULT_CREDIT, fault.incident_id, fault.from_us, fault.until_us))
    for credit in _reclaimed(intervals, conditions):
        found[credit[0]].append(credit[1])
    return found


def _reclaimed(intervals: Iterable[Interval], conditions: Conditions) -> Iterator[tuple[str, Credit]]:
    """By lease what is given back of spot runs that were taken back. A run may be taken back and go on several times:
    each hour counts from its first active moment after the last time."""
    reclaims = [each for each in conditions.reclaims if _facts(conditions, each.lease_id).option is PurchaseOption.SPOT]
    if not reclaims:
        return
    active: dict[tuple[str, int], list[Interval]] = defaultdict(list)
    for interval in intervals:
        if interval.runs:
            active[interval.lease_id, interval.run].append(interval)
    before: dict[tuple[str, int], int] = {}
    for reclaim in sorted(set(reclaims), key=lambda each: (each.lease_id, each.run, each.at_us)):
        key = (reclaim.lease_id, reclaim.run)
        last_us = before.get(key, 0)
        before[key] = reclaim.at_us
        began_us = min((max(each.start_us, last_us) for each in active[key] if each.end_us > last_us), default=None)
        if began_us is not None and 0 < reclaim.at_us - began_us < RECLAIM_FREE_US:
            origin = f"{reclaim.lease_id}/{reclaim.run}"
            yield reclaim.lease_id, Credit(What.RECLAIM_CREDIT, origin, began_us, reclaim.at_us, reclaim.run)


def _facts(conditions: Conditions, lease_id: str) -> LeaseFacts:
    return conditions.facts.get(lease_id, NO_FACTS)
