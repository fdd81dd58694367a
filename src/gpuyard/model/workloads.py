"""Workloads: what a tenant asks to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gpuyard.model.leases import PurchaseOption
from gpuyard.model.sharing import Sharing
from gpuyard.model.slices import SliceShape
from gpuyard.model.states import WorkloadState


class WorkloadKind(StrEnum):
    """An instance is interactive and keeps its disk over stops; a job runs to its end; a service keeps replicas."""

    INSTANCE = "instance"
    JOB = "job"
    SERVICE = "service"


class Desired(StrEnum):
    """What was last asked for."""

    RUN = "run"
    STOP = "stop"
    REMOVE = "remove"


class RestartPolicy(StrEnum):
    """When a unit that ended by itself is started again."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


class WhenReclaimed(StrEnum):
    """What becomes of a spot workload whose slices the yard took back."""

    WAIT = "wait"  # it keeps its disk, and runs again when there are slices
    REMOVE = "remove"  # it goes, disk and logs included


@dataclass(frozen=True, slots=True)
class SliceRequest:
    """`count` slices of one shape, on as many different cards of one node. `card_model` None means any model."""

    shape: SliceShape
    card_model: str | None
    count: int = 1
    offer: str | None = None
    mig: bool = False  # the shape of a MIG instance: nothing else will do
    sharing: Sharing = Sharing.SHARED


@dataclass(frozen=True, slots=True)
class Mount:
    """A named volume of the tenant at a path of the unit. In the process runtime the path lies below the disk."""

    volume: str
    path: str
    read_only: bool = False
    encrypted: bool = False  # it must be encrypted with a key of the tenant's, or the unit does not start


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """All that a unit of the workload needs. Secrets are not here: they are stored sealed, apart."""

    kind: WorkloadKind
    command: tuple[str, ...]
    slices: SliceRequest
    image: str | None = None  # None: this machine's own programs (process runtime)
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    secret_names: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[int, ...] = ()
    working_directory: str | None = None  # relative to the disk in the process runtime
    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    disk_bytes: int = 10 << 30
    replicas: int = 1
    restart: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 3
    stop_grace_us: int = 10_000_000
    time_limit_us: int | None = None
    checkpoint_command: tuple[str, ...] = ()  # run inside the unit before it is asked to end
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    priority: int = 0  # the tier in the queue, 0 to 9
    when_reclaimed: WhenReclaimed = WhenReclaimed.WAIT
    max_price_nano: int | None = None  # a bid on spot: for one slice an hour; None: what the book asks

    @property
    def is_gang(self) -> bool:
        """Whether the replicas start together or not at all, and fail together."""
        return self.kind is WorkloadKind.JOB and self.replicas > 1


# What an instance holds of its node while it runs without its cards: enough to copy and edit, and so little that cards
# are not left without CPUs for those who rent them.
CPU_ONLY_MILLI: Final = 1000
CPU_ONLY_MEMORY_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload as the store knows it."""

    id: str
    tenant_id: str
    name: str
    spec: WorkloadSpec
    desired: Desired
    state: WorkloadState
    reason: str | None  # a text key, why it is in this state
    reason_params: Mapping[str, object]
    runtime: str  # process, container or simulated
    exit_code: int | None
    created_us: int
    updated_us: int
    cpu_only: bool = False  # started without its cards: it holds a little CPU and memory, and costs the price of that

    @property
    def cpu_milli(self) -> int:
        """What each of its units holds."""
        return min(self.spec.cpu_milli, CPU_ONLY_MILLI) if self.cpu_only else self.spec.cpu_milli

    @property
    def memory_bytes(self) -> int:
        """What each of its units holds."""
        return min(self.spec.memory_bytes, CPU_ONLY_MEMORY_BYTES) if self.cpu_only else self.spec.memory_bytes
