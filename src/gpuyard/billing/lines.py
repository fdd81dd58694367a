"""RatedLine: what one lease or commitment costs in one state, run, price and UTC day, and what that would cost by list.

Every amount is an exact product rounded once, half to even, to a millionth of the currency. A line's `id` does not
depend on its amount: rating the same history again, or more of it, gives the same line with another amount.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from gpuyard.billing.rating import MICRO_NANO
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import GIB, HOUR_US


class What(StrEnum):
    """What a line is for."""

    ACTIVE = "active"  # it ran
    STOPPED = "stopped"  # its disk and place while it did not
    MINIMUM = "minimum"  # what a run was short of the minimum
    CPU_ONLY = "cpu_only"  # it ran without a card
    EGRESS = "egress"  # bytes that left the yard
    RESERVATION = "reservation"  # a commitment's upfront payment or its time, used or not
    UNUSED = "unused"  # the part of a commitment that nobody used: costs nothing more, is lost, and is shown
    FAULT_CREDIT = "fault_credit"  # time charged after the last proven good second before an incident
    RECLAIM_CREDIT = "reclaim_credit"  # a spot run that the yard took back within its first hour
    ADJUSTMENT = "adjustment"  # what became known of a closed month after its invoice
    ROUNDING = "rounding"  # from millionths to what can be paid


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One line of a bill. `amount_nano` is a multiple of 1000; credits are negative."""

    tenant_id: str
    workload_id: str
    workload_name: str
    lease_id: str
    offer: str
    day: str
    what: What
    run: int
    duration_us: int
    price_per_hour_nano: int  # as contracted; of egress per GiB
    amount_nano: int
    currency: str
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    card_model: str = ""
    share_ppm: int = 0  # of all its slices together
    list_price_per_hour_nano: int = 0
    list_nano: int = 0  # what this would cost on demand without any discount
    effective_nano: int = 0  # with what was paid ahead spread over the time that it was paid for
    commitment_id: str = ""  # the reservation that covers it
    origin: str = ""  # what it comes from: an incident, or the invoice that it corrects
    quantity_bytes: int = 0  # egress
    tags: tuple[tuple[str, str], ...] = ()  # labels of its workload

    @property
    def key(self) -> tuple[str | int, ...]:
        """What makes it this line and no other, whatever its amount."""
        return (
            self.tenant_id,
            self.lease_id,
            self.day,
            self.what.value,
            self.run,
            self.price_per_hour_nano,
            self.list_price_per_hour_nano,
            self.option.value,
            self.commitment_id,
            self.origin,
        )

    @property
    def id(self) -> str:
        """128 bits of `key` as 32 hexadecimal digits: the same for the same line, wherever it is rated."""
        return hashlib.sha256("\n".join(map(str, self.key)).encode()).hexdigest()[:32]


def round_micro(exact_nano: Fraction) -> int:
    """An exact amount in nano-units, rounded half to even to a millionth of the currency."""
    return round(exact_nano / MICRO_NANO) * MICRO_NANO


def time_cost(duration_us: int, price_per_hour_nano: int) -> Fraction:
    """Exactly what a duration costs, in nano-units."""
    return Fraction(duration_us * price_per_hour_nano, HOUR_US)


def bytes_cost(quantity_bytes: int, price_per_gib_nano: int) -> Fraction:
    """Exactly what a transfer costs, in nano-units."""
    return Fraction(quantity_bytes * price_per_gib_nano, GIB)


def total_nano(lines: Iterable[RatedLine]) -> int:
    """The sum of the rounded lines."""
    return sum(line.amount_nano for line in lines)
