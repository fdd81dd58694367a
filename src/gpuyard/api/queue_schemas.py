"""The shapes of the queue on the wire: goals, plans, shares and explanations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Hours = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(?:\.[0-9]{1,6})?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GoalWish(_Strict):
    """So much work, to be done by a moment or for an amount, instead of a card model."""

    card_model: Text = Field(description="the model that the card-hours are told of", examples=["RTX4090"])
    card_hours: Hours = Field(description="decimal, at most six places", examples=["10.5"])
    deadline: Text | None = Field(None, description="RFC 3339 with an offset", examples=["2026-11-23T15:00:00Z"])
    budget: Annotated[str, StringConstraints(max_length=40)] | None = Field(None, examples=["25.00"])


class PlanRequest(_Strict):
    """What is to be compared: the goal, on so many cards of one node."""

    goal: GoalWish
    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    option: Literal["on_demand", "spot"] | None = Field(None, description="absent: both are shown")


class TierView(BaseModel):
    """What the work comes to on one card model. `misses`: deadline, budget, unknown_start."""

    card_model: str
    option: str
    count: int
    price_per_hour: str
    start_at: str | None
    seconds: int
    finish_at: str | None
    cost: str
    currency: str
    misses: list[str]
    chosen: bool


class ComparisonView(BaseModel):
    """Every tier, the cheapest first; `text` says which would be chosen and why."""

    tiers: list[TierView]
    chosen: str | None
    text: str


class ShareRequest(_Strict):
    """A tenant's standing. What is absent stays as it is; null takes a quota away."""

    weight: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    quota_compute_ppm: Annotated[int, Field(strict=True, ge=0, le=10**12)] | None = None
    quota_memory_bytes: Annotated[int, Field(strict=True, ge=0, le=1 << 53)] | None = None
    may_borrow: Annotated[bool, Field(strict=True)] | None = None
    max_priority: Annotated[int, Field(strict=True, ge=0, le=9)] | None = None


class ShareView(BaseModel):
    tenant_id: str
    weight: int
    quota_compute_ppm: int | None
    quota_memory_bytes: int | None
    may_borrow: bool
    max_priority: int


class WhyView(BaseModel):
    """Why it is where it is, or why it waits: `lines` in words, and the facts behind them."""

    workload_id: str
    name: str
    state: str
    lines: list[str]
    placements: list[dict[str, object]]
    waiting: dict[str, object] | None


class CheckpointView(BaseModel):
    workload_id: str
    leases: int
    at: str
