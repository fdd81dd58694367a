"""Incidents of the hardware over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import incident_schemas, schemas, views
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.control import incident_views, incidents
from gpuyard.model.tenants import Role
from gpuyard.model.times import from_text, to_text
from gpuyard.model.units import format_money

router = APIRouter(tags=["incidents"])
View = incident_schemas.IncidentView


@router.get("/incidents", responses={200: {"model": schemas.Page[View]}})
async def list_incidents(
    caller: Caller,
    tenant: str | None = None,
    only_open: Annotated[bool, Query(alias="open")] = False,
    limit: Limit = 50,
) -> Response:
    """Faults of the hardware, newest first: to an operator all of them, to a tenant those that hit its leases."""

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        return page([_view(caller, each) for each in incident_views.hits(caller.yard, scope, only_open, limit)], None)

    return await caller.write(work)


@router.get("/incidents/{incident}", responses={200: {"model": View}})
async def show_incident(caller: Caller, incident: str, tenant: str | None = None) -> Response:
    """One of them: which leases it hit and what they get back."""

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        return answer(_view(caller, incident_views.hit(caller.yard, scope, incident)))

    return await caller.write(work)


@router.post("/incidents", status_code=201, responses={201: {"model": View}})
async def open_incident(caller: Caller, body: incident_schemas.IncidentRequest) -> Response:
    """Reports a fault. What runs on it is not charged from the last good second until the incident is closed."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        last_good_us = None if body.last_good is None else from_text(body.last_good)
        seen = incidents.Sighting(body.what, body.card, body.node, body.lease, last_good_us)
        opened = incidents.report(caller.yard, seen, caller.identity.user)
        return answer(_view(caller, incident_views.hit(caller.yard, None, opened.id)), 201)

    return await caller.write(work)


@router.post("/incidents/{incident}/close", responses={200: {"model": View}})
async def close_incident(caller: Caller, incident: str, body: incident_schemas.CloseRequest) -> Response:
    """The hardware is well again: what was given back stays so, and from then on it is charged."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        at_us = None if body.at is None else from_text(body.at)
        closed = incidents.close(caller.yard, incident, caller.identity.user, at_us)
        return answer(_view(caller, incident_views.hit(caller.yard, None, closed.id)))

    return await caller.write(work)


@router.post("/incidents/{incident}/dismiss", responses={200: {"model": View}})
async def dismiss_incident(caller: Caller, incident: str) -> Response:
    """It was no fault: what was given back for it is charged after all."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        dismissed = incidents.dismiss(caller.yard, incident, caller.identity.user)
        return answer(_view(caller, incident_views.hit(caller.yard, None, dismissed.id)))

    return await caller.write(work)


def _view(caller: Asking, found: incident_views.Hit) -> views.View:
    incident = found.incident
    operator = caller.identity.role is Role.OPERATOR

    def moment(us: int | None) -> str | None:
        return None if us is None else to_text(us)

    return {
        "id": incident.id,
        "cause": incident.cause.value,
        "state": "open" if incident.outcome is None else incident.outcome.value,
        "node": incident.node,
        "card_uuid": incident.card_uuid,
        "lease_id": incident.lease_id,
        "what": incident.what,
        "opened_at": to_text(incident.opened_us),
        "opened_by": incident.opened_by if operator else None,
        "last_good_at": moment(incident.last_good_us),
        "closed_at": moment(incident.closed_us),
        "closed_by": incident.closed_by if operator else None,
        "leases": list(found.lease_ids),
        "given_back": format_money(found.given_back_nano),
        "currency": caller.yard.book.currency,
    }
