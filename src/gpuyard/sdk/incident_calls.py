"""Calls about incidents of the hardware."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import quote

from gpuyard.sdk.calls import Call, params_of
from gpuyard.sdk.types import Page


class Incident(TypedDict):
    id: str
    cause: str
    state: str
    node: str | None
    card_uuid: str | None
    lease_id: str | None
    what: str
    opened_at: str
    opened_by: str | None
    last_good_at: str | None
    closed_at: str | None
    closed_by: str | None
    leases: list[str]
    given_back: str
    currency: str


def incidents(tenant: str | None = None, only_open: bool = False, limit: int = 50) -> Call[Page[Incident]]:
    params = params_of(tenant=tenant, open=only_open, limit=limit)
    return Call("GET", "/v1/incidents", Page[Incident], params)


def incident(incident_id: str, tenant: str | None = None) -> Call[Incident]:
    return Call("GET", _path(incident_id), Incident, params_of(tenant=tenant))


def open_incident(
    what: str,
    card: str | None = None,
    node: str | None = None,
    lease: str | None = None,
    last_good: str | None = None,
) -> Call[Incident]:
    body: dict[str, object] = {"what": what, "card": card, "node": node, "lease": lease, "last_good": last_good}
    return Call("POST", "/v1/incidents", Incident, body=body, repeatable=False)


def close_incident(incident_id: str, at: str | None = None) -> Call[Incident]:
    return Call("POST", f"{_path(incident_id)}/close", Incident, body={"at": at}, repeatable=False)


def dismiss_incident(incident_id: str) -> Call[Incident]:
    return Call("POST", f"{_path(incident_id)}/dismiss", Incident, repeatable=False)


def _path(incident_id: str) -> str:
    return f"/v1/incidents/{quote(incident_id, safe='')}"
