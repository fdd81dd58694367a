"""What the loops look at (World), what they want changed (Changes), and what they ask of the engine (Actions)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuyard.engines.runtime import Observation
from gpuyard.model.leases import Lease, Proof
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Desired, Workload
from gpuyard.store.meters import Meter
from gpuyard.store.moves import Move
from gpuyard.store.placements import Notice


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on both clocks: yard time for the bill, monotonic time as its proof."""

    at_us: int
    monotonic_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class World:
    """The store and the engine at one moment. `leases` are those that have not ended."""

    now: Moment
    workloads: Mapping[str, Workload]
    leases: tuple[Lease, ...]
    meters: Mapping[str, Meter]
    observations: Mapping[str, Observation]
    healthy_cards: frozenset[str]
    proofs_due: bool = True  # whether it is time to write down how far everything is proven to have run
    start_errors: Mapping[str, str] = field(default_factory=dict[str, str])  # unit name -> why it could not start yet
    pending_reasons: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    notices: Mapping[str, Notice] = field(default_factory=dict[str, Notice])  # spot leases that are to go
    locked: Mapping[str, str] = field(default_factory=dict[str, str])  # lease without a unit -> a volume
    moves: Mapping[str, Move] = field(default_factory=dict[str, Move])  # leases on their way to another place

    def goes(self, lease: Lease, workload: Workload) -> bool:
        """Whether the lease's notice has come to the point where its unit is asked to end."""
        notice = self.notices.get(lease.id)
        return notice is not None and self.now.at_us >= notice.until_us - reclaim_grace_us(notice, workload)


def reclaim_grace_us(notice: Notice, workload: Workload) -> int:
    """How much of the notice is left to the checkpoint and to ending: half of it, or the workload's own stop grace
    where that is longer, and never more than all of it."""
    whole_us = notice.until_us - notice.notice_us
    return min(whole_us, max(workload.spec.stop_grace_us, whole_us // 2))


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """One arrow of the lease machine. The meter follows the state: the old one closes at `moment`, the next opens
    there, so that a lease's intervals have neither gap nor overlap."""

    before: Lease
    after: Lease
    moment: Moment
    proof: Proof = Proof.OBSERVED
    release: bool = False
    move: Move | None = None  # the lease takes the place that this move holds, which takes the lease's


@dataclass(frozen=True, slots=True)
class WorkloadChange:
    """A workload's new state and why; `desired` where the yard itself gives up wanting it to run."""

    workload: Workload
    state: WorkloadState
    reason: str | None
    reason_params: Mapping[str, object]
    exit_code: int | None
    desired: Desired | None = None


@dataclass(frozen=True, slots=True)
class StartUnit:
    lease: Lease


@dataclass(frozen=True, slots=True)
class StopUnit:
    name: str
    runtime: str | None  # None: whichever runtime knows it
    grace_us: int
    checkpoint_command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForgetUnit:
    name: str


@dataclass(frozen=True, slots=True)
class RemoveDisks:
    workload: Workload


Action = StartUnit | StopUnit | ForgetUnit | RemoveDisks


@dataclass(slots=True)
class Verdict:
    """Everything one look at the world calls for."""

    lease_changes: list[LeaseChange] = field(default_factory=list[LeaseChange])
    workload_changes: list[WorkloadChange] = field(default_factory=list[WorkloadChange])
    proofs: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])  # lease, proven µs and ns
    actions: list[Action] = field(default_factory=list[Action])
