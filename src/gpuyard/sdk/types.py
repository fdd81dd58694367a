"""What the API answers, as typed dictionaries. Units are as on the wire: see each field's name."""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypedDict, TypeVar

T = TypeVar("T")

WorkloadStateName = Literal[
    "pending", "starting", "running", "stopping", "stopped", "succeeded", "failed", "removing", "removed"
]


class Page(TypedDict, Generic[T]):
    items: list[T]
    next: str | None


class SliceInfo(TypedDict):
    card_uuid: str
    memory_bytes: int
    compute_ppm: int
    guarantee: str
    not_protected: list[str]
    instance: str | None


class Lease(TypedDict):
    id: str
    workload_id: str
    tenant_id: str
    replica: int
    state: str
    run: int
    attempt: int
    restarts: int
    option: str
    node: str | None
    slices: list[SliceInfo]
    price_per_hour: str | None
    currency: str | None
    exit_code: int | None
    reason: str | None
    reason_text: str | None
    created_at: str
    updated_at: str


class Endpoint(TypedDict):
    replica: int
    port: int
    address: str


class SliceSpec(TypedDict):
    offer: str | None
    card_model: str | None
    memory_bytes: int
    compute_ppm: int
    count: int
    sharing: str


class Spec(TypedDict):
    command: list[str]
    image: str | None
    environment: dict[str, str]
    secret_names: list[str]
    mounts: list[dict[str, object]]
    ports: list[int]
    working_directory: str | None
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    replicas: int
    restart: str
    max_restarts: int
    stop_grace_us: int
    time_limit_us: int | None
    checkpoint_command: list[str]
    labels: dict[str, str]
    option: str
    priority: int
    when_reclaimed: str
    slices: SliceSpec


class Confidentiality(TypedDict):
    level: Literal["not_confidential", "processor", "processor_and_cards"]
    because: str
    text: str
    until: str | None


class Workload(TypedDict):
    id: str
    tenant_id: str
    name: str
    kind: Literal["instance", "job", "service"]
    state: WorkloadStateName
    desired: Literal["run", "stop", "remove"]
    reason: str | None
    reason_text: str | None
    exit_code: int | None
    runtime: str
    cpu_only: bool
    cpu_milli: int
    memory_bytes: int
    sent_bytes: int | None
    isolation: dict[str, list[str]]
    confidentiality: Confidentiality
    spec: Spec
    leases: list[Lease]
    endpoints: list[Endpoint]
    created_at: str
    updated_at: str


class Plan(TypedDict):
    fits: bool
    placements: list[dict[str, object]]
    refusals: list[dict[str, object]]
    offer: str
    price_per_hour: str
    currency: str
    runtime: str
    isolation: dict[str, list[str]]


class Node(TypedDict):
    name: str
    state: str
    cpu_milli: int
    memory_bytes: int
    cards: int
    rack: str | None
    region: str | None
    simulated: bool


class Card(TypedDict):
    uuid: str
    model: str
    node: str
    pci_address: str
    state: str
    simulated: bool
    memory_bytes: int
    memory_free_bytes: int
    compute_free_ppm: int
    leases: int


class Offer(TypedDict):
    name: str
    card_model: str
    memory_bytes: int
    compute_ppm: int
    cpu_milli: int
    ram_bytes: int
    guarantee: str
    not_protected: list[str]
    price_per_hour: str
    currency: str
    available: int


class BillLine(TypedDict):
    tenant_id: str
    workload_id: str
    workload_name: str
    lease_id: str
    offer: str
    day: str
    what: str
    seconds: str
    price_per_hour: str
    amount: str
    currency: str
    bytes: int | None
    origin: str | None


class Bill(TypedDict):
    currency: str
    total: str
    lines: list[BillLine]
    by_workload: dict[str, str]
    by_day: dict[str, str]
    open_until: str


class Interval(TypedDict):
    lease_id: str
    sequence: int
    tenant_id: str
    workload_id: str
    workload_name: str
    offer: str
    state: str
    run: int
    start: str
    end: str
    duration_us: int
    node: str | None
    boot_id: str
    proof: str
    price_per_hour: str
    currency: str


class Event(TypedDict):
    sequence: int
    kind: str
    subject: str
    at: str
    tenant_id: str | None
    actor: str
    data: dict[str, object]


class LogLine(TypedDict):
    at: str
    stream: Literal["stdout", "stderr"]
    text: str
    replica: int


class Tenant(TypedDict):
    id: str
    name: str
    credit: str | None
    spent: str
    balance: str | None
    currency: str
    created_at: str


class Token(TypedDict):
    id: str
    user: str
    role: str
    tenant_id: str
    created_at: str
    revoked: bool
    expires_at: str | None
    last_used_at: str | None
    token: NotRequired[str]  # only in the answer that makes it


class AccessKey(TypedDict):
    id: str
    user: str
    role: str
    tenant_id: str
    created_at: str
    last_used_at: str | None
    revoked: bool
    expires_at: str | None
    secret: NotRequired[str]  # only in the answer that makes it


class WhoAmI(TypedDict):
    user: str
    role: str
    tenant_id: str
    tenant_name: str
    token_id: str


class Finding(TypedDict):
    name: str
    ok: bool | None
    text: str


class Doctor(TypedDict):
    findings: list[Finding]
    cards: list[dict[str, object]]


class Check(TypedDict):
    """One thing that a program inside a lease tried; `held` None: it could not be tried."""

    name: Literal["cards", "shown", "memory", "compute", "multiprocessors"]
    way: str
    card: str
    limit: int
    got: int | None
    held: bool | None


class Verification(TypedDict):
    workload: str
    replica: int
    guarantee: str
    held: bool
    checks: list[Check]


class PoolUse(TypedDict):
    """How much of the pool is leased beside its target, and moves of the last day. None: not known."""

    leased_ppm: int | None
    target_ppm: int
    nodes: int
    empty_nodes: int
    moves_on_the_way: int
    moves_done: int
    saved_watts: int | None


class YardInfo(TypedDict):
    version: str
    yard_id: str
    address: str
    state_dir: str
    database: str
    now: str
    clock_offset_us: int
    nodes: int
    cards: int
    workloads: dict[str, int]
    runtimes: list[dict[str, object]]
    engine_error: str | None
    pool: PoolUse


class Launch(TypedDict, total=False):
    """A launch; `kind` and `slices` must be there. See `LaunchRequest` of the API for what each means."""

    kind: Literal["instance", "job", "service"]
    name: str
    slices: dict[str, object]
    command: list[str]
    image: str
    environment: dict[str, str]
    secrets: dict[str, str]
    mounts: list[dict[str, object]]
    ports: list[int]
    working_directory: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    replicas: int
    restart: str
    max_restarts: int
    stop_grace_us: int
    time_limit_us: int
    checkpoint_command: list[str]
    labels: dict[str, str]
    option: str
    max_price: str
    priority: int
    when_reclaimed: str
    runtime: str
    cpu_only: bool
    tenant: str
