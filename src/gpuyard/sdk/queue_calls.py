"""The calls about the queue: why, what a goal comes to, checkpoints, and tenants' shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict
from urllib.parse import quote

from gpuyard.sdk.calls import Call


class Why(TypedDict):
    workload_id: str
    name: str
    state: str
    lines: list[str]
    placements: list[dict[str, object]]
    waiting: dict[str, object] | None


class Tier(TypedDict):
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


class Comparison(TypedDict):
    tiers: list[Tier]
    chosen: str | None
    text: str


class Checkpoint(TypedDict):
    workload_id: str
    leases: int
    at: str


class Share(TypedDict):
    tenant_id: str
    weight: int
    quota_compute_ppm: int | None
    quota_memory_bytes: int | None
    may_borrow: bool
    max_priority: int


def why(workload: str, tenant: str | None = None) -> Call[Why]:
    return Call("GET", f"/v1/workloads/{quote(workload, safe='')}/why", Why, _tenant(tenant))


def checkpoint(workload: str, tenant: str | None = None) -> Call[Checkpoint]:
    return Call("POST", f"/v1/workloads/{quote(workload, safe='')}/checkpoint", Checkpoint, _tenant(tenant))


def goal(card_model: str, card_hours: str, deadline: str | None, budget: str | None) -> dict[str, object]:
    """A goal as the API takes it."""
    values = {"card_model": card_model, "card_hours": card_hours, "deadline": deadline, "budget": budget}
    return {name: value for name, value in values.items() if value is not None}


def compare(goal: Mapping[str, object], count: int = 1, option: str | None = None) -> Call[Comparison]:
    body: dict[str, object] = {"goal": dict(goal), "count": count}
    if option is not None:
        body["option"] = option
    return Call("POST", "/v1/plans", Comparison, body=body)


def share(tenant: str) -> Call[Share]:
    return Call("GET", f"/v1/tenants/{quote(tenant, safe='')}/share", Share)


def set_share(tenant: str, changes: Mapping[str, object]) -> Call[Share]:
    return Call("PUT", f"/v1/tenants/{quote(tenant, safe='')}/share", Share, body=dict(changes))


def _tenant(tenant: str | None) -> dict[str, str | int | list[str]]:
    return {} if tenant is None else {"tenant": tenant}
