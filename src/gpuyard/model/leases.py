"""Lease and Interval: a tenant's right to slices for a time, and the proof of how long it was used."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gpuyard.model.slices import Slice
from gpuyard.model.states import LeaseState


class PurchaseOption(StrEnum):
    """How a lease was bought."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"  # a commitment paid for a whole term, used or not
    SPOT = "spot"  # what is left over, at the price in force, until somebody else needs it


REBOOTING: Final = "rebooting"  # the reason of a lease whose unit is to end, or has ended, to be started anew at once

RECLAIMED: Final = "reclaimed"  # the reason of a lease that the yard took its slices back from


class Proof(StrEnum):
    """Who says when an interval ended."""

    OBSERVED = "observed"  # the yard saw it happen, or did it
    EXIT_RECORD = "exit_record"  # the unit's supervisor or container engine recorded the exit
    HEARTBEAT = "heartbeat"  # the last sign of life of a supervisor that is gone
    LAST_PROVEN = "last_proven"  # the last moment that the yard had written down


@dataclass(frozen=True, slots=True)
class Terms:
    """The prices a lease runs under, fixed when its slices were granted: later price books do not touch them."""

    currency: str
    active_per_hour_nano: int
    stopped_per_hour_nano: int
    minimum_us: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One replica's right to slices. Its unit, if any, is named by `unit_name`."""

    id: str
    workload_id: str
    tenant_id: str
    replica: int
    state: LeaseState
    run: int  # how many times it was started; the minimum charge counts per run
    attempt: int  # which unit of this lease; each attempt has a name of its own
    restarts: int  # restarts after failures within this run
    node: str | None
    slices: tuple[Slice, ...] = field(default=())
    terms: Terms | None = None
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    reason: str | None = None
    exit_code: int | None = None
    not_before_us: int = 0  # a restart waits until then
    run_started_us: int | None = None  # when the unit of this run first ran; the time limit counts from here
    created_us: int = 0
    updated_us: int = 0
    detail: str | None = None  # what the runtime said where the reason is `start_failed`

    @property
    def unit_name(self) -> str:
        """Deterministic, so that creating twice is looking once."""
        return f"{self.id}-{self.attempt}"

    @property
    def reboots(self) -> bool:
        """Whether it is between two units of a reboot, which is billed like the time in which it runs."""
        return self.state is LeaseState.GRANTED and self.reason == REBOOTING

    @property
    def disk_name(self) -> str:
        """The replica's disk, which outlives its leases: a job that is started again finds its checkpoint."""
        return f"{self.workload_id}-{self.replica}"


UNPRICED: Final = "--"  # the currency of time that a lease was counted before it ever had terms


@dataclass(frozen=True, slots=True)
class Interval:
    """An immutable record: this lease was in this state from start to end, proven by this node.

    It copies every id and price that billing needs: metering rows must outlive what they bill.
    """

    lease_id: str
    sequence: int  # per lease, from 1, without gaps
    tenant_id: str
    workload_id: str
    workload_name: str
    offer: str
    state: LeaseState
    run: int
    start_us: int
    end_us: int
    node: str | None
    boot_id: str
    monotonic_start_ns: int
    monotonic_end_ns: int
    proof: Proof
    price_per_hour_nano: int
    currency: str
    minimum_us: int
    card_uuids: tuple[str, ...] = ()  # where its slices were; none where nobody had written that down yet
    share_ppm: int | None = None  # of cards, all slices together; None where nobody had written that down yet

    @property
    def runs(self) -> bool:
        """Whether it is time in which the lease ran, or in which its tenant had it rebooted: what is granted costs
        nothing otherwise."""
        return self.state is LeaseState.ACTIVE or (self.state is LeaseState.GRANTED and self.price_per_hour_nano > 0)

    @property
    def cpu_only(self) -> bool:
        """Whether it ran without any card."""
        return self.runs and self.share_ppm == 0

    @property
    def duration_us(self) -> int:
        """Never negative; yard time advances with the node's monotonic clock."""
        return self.end_us - self.start_us
