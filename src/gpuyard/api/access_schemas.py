"""The shapes of access on the wire: policies, what they are attached to, quotas and geography."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+=,.@_-]{0,127}$")]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
Document = Annotated[str, StringConstraints(max_length=100_000)]
Amount = Annotated[int, Field(strict=True, ge=0, le=9 * 10**18)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyRequest(_Strict):
    document: Document = Field(description="the policy as JSON text, in IAM's language")


class PolicyView(BaseModel):
    name: str
    document: str
    updated_at: str
    warnings: list[str] = Field(description="what is allowed and probably not meant, in the caller's language")


class CheckView(BaseModel):
    findings: list[str] = Field(description="for what it would be refused; empty for a policy that can be saved")
    warnings: list[str]


class AttachmentRequest(_Strict):
    policy: PolicyName
    kind: Literal["everyone", "organisation", "project", "user", "token"]
    subject: Subject = Field(description="an organisation, a tenant, tenant/user, a token's id; * for everyone")
    fence: bool = Field(False, description="allows nothing by itself; without its Allow nothing is allowed")


class AttachmentView(BaseModel):
    policy: str
    kind: str
    subject: str
    fence: bool


class ExplainRequest(_Strict):
    user: Subject
    tenant: Subject
    role: Literal["operator", "member", "viewer"] = "member"
    token: Subject = "--"  # noqa: S105 - the id of a token, never a token
    action: Key = Field(description="as policies name it, such as ec2:RunInstances", examples=["ec2:RunInstances"])
    resource_id: Key = "*"
    facts: Annotated[dict[Key, Text | list[Text]], Field(max_length=50)] = {}


class ExplainView(BaseModel):
    allowed: bool
    because: str
    statements: list[str]
    action: str
    resource: str


class DryRunRequest(_Strict):
    policy: PolicyName
    document: Document
    attach: AttachmentRequest | None = None
    days: Annotated[int, Field(strict=True, ge=1, le=90)] = 7


class DryRunChange(BaseModel):
    at: str
    user: str | None
    action: str
    resource: str
    was_allowed: bool
    would_be_allowed: bool
    statements: list[str]
    count: int


class DryRunView(BaseModel):
    entries: int
    changed: int
    not_told: int = Field(description="entries whose subject was shredded: what they would be cannot be told")
    complete: bool
    changes: list[DryRunChange]


class OrganisationRequest(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]


class OrganisationView(BaseModel):
    id: str
    name: str
    tenants: list[str]


class MembershipRequest(_Strict):
    organisation: Subject


class QuotaRequest(_Strict):
    kind: Literal["organisation", "project", "user"]
    subject: Subject
    what: Literal["card_share_ppm", "card_memory_bytes", "storage_bytes", "spend_per_hour_nano"]
    soft: Amount | None = None
    hard: Amount | None = None


class QuotaView(BaseModel):
    kind: str
    subject: str
    what: str
    soft: int | None
    hard: int | None
    held: int


class ExportClassRequest(_Strict):
    card_models: Annotated[list[Key], Field(max_length=100)]
    countries: Annotated[list[Key], Field(max_length=300)]


class CountryRequest(_Strict):
    country: Key
    verifier: Subject
    evidence_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    expires_at: Key


class NetworksRequest(_Strict):
    networks: Annotated[dict[Key, Key | None], Field(max_length=100_000)] = Field(
        description="the country of each network; null for the trusted proxies"
    )


class ShredRequest(_Strict):
    tenant: Subject
    user: Subject
