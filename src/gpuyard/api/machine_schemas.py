"""The shapes of machines on the wire: what operators ask and see, and what machines tell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpuyard.access.machines import MOST_REQUEST_BYTES
from gpuyard.api import schemas
from gpuyard.control.machines.inviting import MOST_US

# What a machine tells is shown on terminals and pages: words without control characters, and not too many.
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Key = Annotated[str, StringConstraints(max_length=60, pattern=r"^[a-z0-9_.]+$")]
Request = Annotated[str, StringConstraints(min_length=1, max_length=MOST_REQUEST_BYTES)]
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 53)]
Moment = Annotated[str, StringConstraints(max_length=40)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InvitationRequest(Strict):
    name: schemas.Name | None = Field(None, description="the name that the machine gets; null: it chooses one")
    expires_s: Annotated[int, Field(strict=True, ge=1, le=MOST_US // 1_000_000)] = 3600


class InvitationView(BaseModel):
    id: str
    name: str | None
    created_at: str
    created_by: str
    expires_at: str
    state: Literal["open", "used", "expired", "withdrawn"]
    machine_id: str | None = Field(description="which machine used it")


class NewInvitationView(InvitationView):
    token: str = Field(description="shown this once")
    url: str = Field(description="where to join: the address of this API")


class JoinRequest(Strict):
    secret: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")] = Field(
        description="of the join token, without what it says of the authority"
    )
    name: schemas.Name
    request: Request = Field(description="a certificate signing request (PEM), with the name and nothing else")


class RenewalRequest(Strict):
    request: Request


class GrantedView(BaseModel):
    name: str
    id: str = Field(description="spiffe://<yard>/machine/<name>")
    certificate: str = Field(description="PEM")
    authorities: str = Field(description="what the port for machines is held against (PEM)")
    until: str
    address: str = Field(description="of the port for machines")
    now: str = Field(description="the yard's wall clock")


class Heartbeat(Strict):
    at: Moment = Field(description="the machine's wall clock")
    version: Word


class HeartbeatView(BaseModel):
    now: str = Field(description="the yard's wall clock")
    every_s: int = Field(description="when it wants to hear again")
    knows_cards: bool = Field(description="whether it has been told of the cards")


class GuaranteeFound(Strict):
    shape: Key
    guarantee: Key
    because: Key
    not_protected: Annotated[list[Key], Field(max_length=20)]


class CardFound(Strict):
    uuid: Word
    model: Word
    pci_address: Word | None
    memory_bytes: Count
    driver: Word | None
    simulated: Annotated[bool, Field(strict=True)]
    guarantees: Annotated[list[GuaranteeFound], Field(max_length=8)]


class FindingFound(Strict):
    name: Key
    ok: Annotated[bool, Field(strict=True)] | None
    params: Annotated[dict[Key, Annotated[str, StringConstraints(max_length=500)]], Field(max_length=20)]


class Inventory(Strict):
    """What a machine sees of itself; it names no machine, as it can be about no other."""

    cpu_milli: Count | None
    memory_bytes: Count | None
    cards: Annotated[list[CardFound], Field(max_length=64)]
    findings: Annotated[list[FindingFound], Field(max_length=64)]
    examined_at: Moment = Field(description="when its guarantees were last tried")


class MachineView(BaseModel):
    id: str
    name: str
    spiffe_id: str
    state: str
    joined_at: str
    invited_by: str
    revoked_at: str | None
    certificate_until: str | None
    last_heartbeat_at: str | None = Field(description="null: none ever came")
    late: bool | None = Field(description="null: cannot be told, as no heartbeat came yet or nobody listens")
    clock_ahead_s: float | None = Field(description="its clock before the yard's, at the last heartbeat written down")
    version: str | None
    reported_at: str | None
    cards: int | None = Field(description="null: it told nothing yet")


class MachineDetailView(MachineView):
    inventory: Inventory | None
