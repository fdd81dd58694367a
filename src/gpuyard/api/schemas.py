"""The shapes that cross the wire: requests are validated by these models, answers are described by them.

Units on the wire: bytes, milli-cores, parts per million and microseconds as integers; money as decimal strings; moments
as RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpuyard.api.queue_schemas import GoalWish
from gpuyard.model.units import MAX_BYTES

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
# What a label or a user is called: shown in lists and on bills, so without control characters.
LabelName = Annotated[str, StringConstraints(max_length=253, pattern=r"^[^\x00-\x1f\x7f]+$")]
UserName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Short = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
Argument = Annotated[str, StringConstraints(max_length=131_072, pattern=r"^[^\x00]*$")]
Value = Annotated[str, StringConstraints(max_length=131_072, pattern=r"^[^\x00]*$")]
Bytes = Annotated[int, Field(strict=True, ge=1, le=MAX_BYTES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SliceWish(_Strict):
    """Either the name of an offer, or a shape of your own: memory and compute, of any or of a certain card model."""

    offer: Short | None = Field(None, examples=["rtx4090-quarter"])
    card_model: Short | None = Field(None, examples=["RTX4090"])
    memory_bytes: Bytes | None = None
    compute_ppm: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    sharing: Literal["shared", "mps", "time_slice", "exclusive"] = Field(
        "shared", description="how the slices share their cards; two ways never share one"
    )
    goal: GoalWish | None = Field(None, description="work with a deadline or a budget, instead of all but the count")


class MountWish(_Strict):
    volume: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    read_only: bool = False
    encrypted: bool = Field(False, description="refuse unless the volume is encrypted with a key of the tenant's")


class LaunchRequest(_Strict):
    """A workload to run."""

    kind: Literal["instance", "job", "service"]
    name: Name | None = Field(None, description="unique among the tenant's workloads; made up where absent")
    slices: SliceWish
    command: Annotated[list[Argument], Field(max_length=1024)] = []
    image: Short | None = Field(None, description="a catalogue image or a full reference; absent: host")
    environment: Annotated[dict[VariableName, Value], Field(max_length=512)] = {}
    secrets: Annotated[dict[VariableName, Value], Field(max_length=128)] = Field({}, description="never shown again")
    mounts: Annotated[list[MountWish], Field(max_length=32)] = []
    ports: Annotated[list[Annotated[int, Field(strict=True, ge=1, le=65535)]], Field(max_length=32)] = []
    working_directory: Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")] | None = None
    cpu_milli: Annotated[int, Field(strict=True, ge=10, le=1_024_000)] | None = None
    memory_bytes: Bytes | None = None
    disk_bytes: Bytes | None = None
    replicas: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    restart: Literal["never", "on_failure", "always"] | None = None
    max_restarts: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 3
    stop_grace_us: Annotated[int, Field(strict=True, ge=0, le=3_600_000_000)] = 10_000_000
    time_limit_us: Annotated[int, Field(strict=True, ge=1_000_000, le=316_224_000_000_000)] | None = None
    checkpoint_command: Annotated[list[Argument], Field(max_length=1024)] = []
    labels: Annotated[dict[LabelName, Value], Field(max_length=64)] = {}
    option: Literal["on_demand", "spot"] = "on_demand"
    max_price: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="with spot: the most to pay for a slice an hour; it goes when the price rises above that"
    )
    priority: Annotated[int, Field(strict=True, ge=0, le=9)] = 0
    when_reclaimed: Literal["wait", "remove"] = Field(
        "wait",
        description="what becomes of it where its slices are taken back, on spot: it waits, or it goes with its disk",
    )
    runtime: Literal["auto", "process", "container", "simulated"] = "auto"
    cpu_only: bool = Field(False, description="an instance's first start is without its cards, at the price of that")
    tenant: Short | None = Field(None, description="operators only: launch for this tenant")


Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """A part of a list. `next` is the cursor of the part after it; null where this is the last."""

    items: list[Item]
    next: str | None


class SliceView(BaseModel):
    card_uuid: str
    memory_bytes: int
    compute_ppm: int
    guarantee: str
    not_protected: list[str]
    instance: str | None  # the MIG instance that backs it: its profile, and where on the card it begins


class EndpointView(BaseModel):
    replica: int
    port: int
    address: str  # host:port on the yard's own machine; from elsewhere use the port-forwarding socket


class LeaseView(BaseModel):
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
    slices: list[SliceView]
    price_per_hour: str | None
    currency: str | None
    exit_code: int | None
    reason: str | None
    reason_text: str | None
    created_at: str
    updated_at: str


class ConfidentialityView(BaseModel):
    """What an instance may be called. `processor`: the memory and processor of its machine; `processor_and_cards`: its
    cards as well."""

    level: Literal["not_confidential", "processor", "processor_and_cards"]
    because: str = Field(description="a stable word for why it is no more")
    text: str
    until: str | None = Field(description="when the evidence is out of date")


class WorkloadView(BaseModel):
    id: str
    tenant_id: str
    name: str
    kind: str
    state: str
    desired: str
    reason: str | None
    reason_text: str | None
    exit_code: int | None
    runtime: str
    cpu_only: bool = Field(description="it runs, or ran last, without its cards")
    cpu_milli: int = Field(description="what each of its units holds: without its cards less than in the spec")
    memory_bytes: int = Field(description="what each of its units holds")
    sent_bytes: int | None = Field(description="what it is charged for having sent; null: nothing that was counted")
    isolation: dict[str, list[str]]
    confidentiality: ConfidentialityView
    spec: dict[str, object]
    leases: list[LeaseView]
    endpoints: list[EndpointView]
    created_at: str
    updated_at: str


class PlanView(BaseModel):
    """What a launch would do now: the answer to `?dry_run=true`."""

    fits: bool
    placements: list[dict[str, object]]
    refusals: list[dict[str, object]]
    offer: str
    price_per_hour: str
    currency: str
    runtime: str
    isolation: dict[str, list[str]]


class CardView(BaseModel):
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


class NodeView(BaseModel):
    name: str
    state: str
    cpu_milli: int
    memory_bytes: int
    cards: int
    rack: str | None
    region: str | None
    simulated: bool


class OfferView(BaseModel):
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


class BillLineView(BaseModel):
    tenant_id: str
    workload_id: str
    workload_name: str
    lease_id: str
    offer: str
    day: str
    what: str = Field(description="active, stopped, minimum, cpu_only, egress or a credit")
    seconds: str
    price_per_hour: str = Field(description="of egress, per GiB")
    amount: str
    currency: str
    bytes: int | None = Field(description="what was sent, of egress")
    origin: str | None  # which incident, or which run, a credit comes from


class BillView(BaseModel):
    currency: str
    total: str
    lines: list[BillLineView]
    by_workload: dict[str, str]
    by_day: dict[str, str]
    open_until: str  # lines of what still runs end at the last proven moment, at most this


class IntervalView(BaseModel):
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


class EventView(BaseModel):
    sequence: int
    kind: str
    subject: str
    at: str
    tenant_id: str | None
    actor: str
    data: dict[str, object]


class CheckView(BaseModel):
    name: Literal["cards", "shown", "memory", "memory_past", "compute", "multiprocessors"]
    way: str
    card: str
    limit: int = Field(description="cards, bytes, parts per million or multiprocessors")
    got: int | None
    held: bool | None = Field(description="absent: it could not be tried on this driver")


class VerifyView(BaseModel):
    workload: str
    replica: int
    guarantee: str
    held: bool
    checks: list[CheckView]


class TenantRequest(_Strict):
    name: Name
    credit: str | None = Field(None, max_length=40, description="decimal; absent: pays later", examples=["25.00"])


class CreditRequest(_Strict):
    amount: str = Field(max_length=40, examples=["25.00"])


class TenantView(BaseModel):
    id: str
    name: str
    credit: str | None
    spent: str
    balance: str | None
    currency: str
    created_at: str


class TokenRequest(_Strict):
    user: UserName
    role: Literal["operator", "member", "viewer"] = "member"
    tenant: Short | None = None


class TokenView(BaseModel):
    id: str
    user: str
    role: str
    tenant_id: str
    created_at: str
    revoked: bool
    expires_at: str | None = Field(description="when it ends by itself; null: when it is revoked")
    last_used_at: str | None = Field(description="to the hour")


class NewTokenView(TokenView):
    token: str = Field(description="shown this once; only its hash is stored")


class WhoAmIView(BaseModel):
    user: str
    role: str
    tenant_id: str
    tenant_name: str
    token_id: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    params: dict[str, object] = {}


class AccessKeyView(BaseModel):
    id: str
    user: str
    role: str
    tenant_id: str
    created_at: str
    last_used_at: str | None = Field(description="to the hour")
    revoked: bool
    expires_at: str | None = Field(description="when it ends by itself; null: when it is revoked")


class NewAccessKeyView(AccessKeyView):
    secret: str = Field(description="shown this once; it lies sealed")
