"""What rating has to know beside the intervals: what was rented how, at which prices, and what went wrong."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpuyard.billing.commitments import Commitment
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import HOUR_US, SECOND_US

RECLAIM_FREE_US: Final = HOUR_US  # a spot run that the yard takes back sooner costs nothing


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """What a lease was rented as. `share_ppm` is of all its slices together."""

    card_model: str = ""
    share_ppm: int = 0
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    tenant_name: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    slices: int = 1  # the spot price is that of one


@dataclass(frozen=True, slots=True)
class Fault:
    """An incident of the yard's hardware: the lease is not charged from its last proven good second until the yard had
    ended it or repaired it."""

    incident_id: str
    lease_id: str
    last_good_us: int
    until_us: int
    began_us: int = 0  # when the lease came onto the faulty hardware: what it ran elsewhere is charged

    @property
    def from_us(self) -> int:
        """The end of the last whole second that is proven good."""
        return max(self.began_us, self.last_good_us // SECOND_US * SECOND_US)


@dataclass(frozen=True, slots=True)
class Reclaim:
    """A run on spot that the yard took back. One that its tenant stopped is none."""

    lease_id: str
    run: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that left the yard."""

    id: str
    tenant_id: str
    workload_id: str
    workload_name: str
    lease_id: str
    offer: str
    at_us: int
    quantity_bytes: int
    price_per_gib_nano: int
    currency: str


@dataclass(frozen=True, slots=True)
class SpotHistory:
    """The spot prices of one offer, per hour, as (from when, price), oldest first."""

    prices: tuple[tuple[int, int], ...]

    def at(self, moment_us: int, otherwise_nano: int) -> int:
        """The price in force."""
        number = bisect_right(self.prices, moment_us, key=lambda change: change[0])
        return self.prices[number - 1][1] if number else otherwise_nano

    def changes_between(self, from_us: int, until_us: int) -> list[int]:
        """When it changed, between two moments."""
        first = bisect_right(self.prices, from_us, key=lambda change: change[0])
        last = bisect_right(self.prices, until_us - 1, key=lambda change: change[0])
        return [moment for moment, _ in self.prices[first:last]]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything beside the intervals. `until_us`: how far commitments have been charged and used."""

    until_us: int = 0
    history: PriceHistory | None = None  # for tariffs and discounts; None: neither
    facts: Mapping[str, LeaseFacts] = field(default_factory=dict[str, LeaseFacts])  # lease -> how it was rented
    commitments: tuple[Commitment, ...] = ()
    spot: Mapping[str, SpotHistory] = field(default_factory=dict[str, SpotHistory])  # offer -> its prices
    faults: tuple[Fault, ...] = ()
    reclaims: tuple[Reclaim, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    still_open: frozenset[tuple[str, int]] = frozenset()  # (lease, run) that go on: no minimum yet
