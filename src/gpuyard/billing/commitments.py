"""Commitment: slices of a card model paid for a whole term, used or not.

Total of a term = price per hour less the discount x its hours. What is not paid upfront is paid by the hour, to the
day; the upfront part is the rest, so that the two always add up to the total exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuyard.billing.lines import RatedLine, What, round_micro, time_cost
from gpuyard.catalog.price_terms import UPFRONT_PPM, WHOLE_PPM, YEAR_US, Upfront, less, times
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.times import day_of
from gpuyard.model.units import DAY_US, HOUR_US


@dataclass(frozen=True, slots=True)
class Commitment:
    """A reservation as it was bought: later price books do not touch it.

    `offer` None: any slices of the card model, by their share (two halves are as good as one full card). An offer:
    only slices bought under that name.
    """

    id: str
    tenant_id: str
    card_model: str
    share_ppm: int  # how much may be used at once: 2,000,000 is two cards
    years: int
    upfront: Upfront
    start_us: int
    currency: str
    list_per_hour_nano: int  # what the same costs on demand
    per_hour_nano: int  # all of the price, upfront part included
    recurring_per_hour_nano: int  # what is charged as time goes by
    offer: str | None = None

    @property
    def end_us(self) -> int:
        """A year is 365 days of 24 hours."""
        return self.start_us + self.years * YEAR_US

    @property
    def hours(self) -> int:
        """Of the whole term."""
        return self.years * YEAR_US // HOUR_US

    @property
    def total_nano(self) -> int:
        """What it costs over its whole term."""
        return self.per_hour_nano * self.hours

    @property
    def upfront_nano(self) -> int:
        """What is charged on its first day."""
        return self.total_nano - self.recurring_per_hour_nano * self.hours

    @property
    def saving_nano(self) -> int:
        """Against the same on demand, if all of it is used."""
        return self.list_per_hour_nano * self.hours - self.total_nano


def reserve(
    book: PriceBook,
    commitment_id: str,
    tenant_id: str,
    card_model: str,
    share_ppm: int,
    years: int,
    upfront: Upfront,
    start_us: int,
    offer: str | None = None,
) -> Commitment:
    """A commitment at the prices of this book.

    Raises YardError `no_price` for a card that is not sold, `no_reservation` for a term that the book does not sell.
    """
    listed = book.price_nano(card_model, share_ppm)
    rate = book.reserved_rate(card_model, years, upfront)
    if rate is None:
        raise YardError("no_reservation", model=card_model, years=years, upfront=upfront.value)
    return at_discount(
        commitment_id, tenant_id, card_model, share_ppm, listed, book.currency, years, upfront, rate.discount_ppm,
        start_us, offer,
    )  # fmt: skip


def at_discount(
    commitment_id: str,
    tenant_id: str,
    card_model: str,
    share_ppm: int,
    list_per_hour_nano: int,
    currency: str,
    years: int,
    upfront: Upfront,
    discount_ppm: int,
    start_us: int,
    offer: str | None = None,
) -> Commitment:
    """A commitment from bare numbers."""
    per_hour = less(list_per_hour_nano, discount_ppm)
    return Commitment(
        id=commitment_id,
        tenant_id=tenant_id,
        card_model=card_model,
        share_ppm=share_ppm,
        years=years,
        upfront=upfront,
        start_us=-(-start_us // HOUR_US) * HOUR_US,  # terms begin on a full hour
        currency=currency,
        list_per_hour_nano=list_per_hour_nano,
        per_hour_nano=per_hour,
        recurring_per_hour_nano=times(per_hour, WHOLE_PPM - UPFRONT_PPM[upfront]),
        offer=offer,
    )


def fees(commitment: Commitment, from_us: int, until_us: int) -> list[RatedLine]:
    """What a commitment is charged in [from, until): its upfront payment on its first day, and every day its time."""
    lines: list[RatedLine] = []
    if from_us <= commitment.start_us < until_us and commitment.upfront_nano:
        lines.append(_fee(commitment, commitment.start_us, 0, round_micro(time_cost(HOUR_US, commitment.upfront_nano))))
    if commitment.recurring_per_hour_nano == 0:
        return lines
    at_us, last_us = max(from_us, commitment.start_us), min(until_us, commitment.end_us)
    while at_us < last_us:
        next_us = min(last_us, (at_us // DAY_US + 1) * DAY_US)
        cost = round_micro(time_cost(next_us - at_us, commitment.recurring_per_hour_nano))
        lines.append(_fee(commitment, at_us, next_us - at_us, cost))
        at_us = next_us
    return lines


def _fee(commitment: Commitment, at_us: int, duration_us: int, cost_nano: int) -> RatedLine:
    return RatedLine(
        tenant_id=commitment.tenant_id,
        workload_id="",
        workload_name="",
        lease_id="",
        offer=commitment.offer or "",
        day=day_of(at_us),
        what=What.RESERVATION,
        run=0 if duration_us else 1,  # the upfront payment is a line of its own
        duration_us=duration_us,
        price_per_hour_nano=commitment.recurring_per_hour_nano if duration_us else 0,
        amount_nano=cost_nano,
        currency=commitment.currency,
        option=PurchaseOption.RESERVED,
        card_model=commitment.card_model,
        share_ppm=commitment.share_ppm,
        list_price_per_hour_nano=commitment.list_per_hour_nano,
        commitment_id=commitment.id,
    )
