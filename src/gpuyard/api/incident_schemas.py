"""What incidents look like over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gpuyard.api.schemas import Short, UserName


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IncidentRequest(_Strict):
    """A fault that an operator saw, on exactly one of a card, a node and a lease."""

    what: UserName = Field(description="in a few words; tenants that were hit read it too")
    card: Short | None = Field(None, description="the UUID of a card")
    node: Short | None = Field(None, description="a node, with all of its cards")
    lease: Short | None = Field(None, description="one lease alone")
    last_good: Short | None = Field(None, description="until when all was well; absent: until now")


class CloseRequest(_Strict):
    at: Short | None = Field(None, description="since when it is well again; absent: since now")


class IncidentView(BaseModel):
    id: str
    cause: str  # node_lost, card_lost, reconciliation or hardware
    state: str  # open, repaired or dismissed
    node: str | None
    card_uuid: str | None
    lease_id: str | None
    what: str
    opened_at: str
    opened_by: str | None  # operators alone see who
    last_good_at: str | None  # absent where nothing is given back
    closed_at: str | None
    closed_by: str | None
    leases: list[str]  # those that it hit, of whoever asks
    given_back: str
    currency: str
