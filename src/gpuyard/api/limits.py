"""Organisations, quotas and geography over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from gpuyard.access.geography import check_country, check_network
from gpuyard.api import access_schemas as shapes
from gpuyard.api import schemas
from gpuyard.api.access import may_manage, subject_of
from gpuyard.api.asking import Caller
from gpuyard.api.rendering import answer, page
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.names import new_id
from gpuyard.model.times import from_text, to_text
from gpuyard.store import events, limits, policies, tenants

router = APIRouter(tags=["access"])

ClassName = Annotated[str, Path(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]


@router.get("/organisations", responses={200: {"model": schemas.Page[shapes.OrganisationView]}})
async def list_organisations(caller: Caller) -> Response:
    """Organisations with the tenants that are their projects."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.read() as c:
            projects, names = policies.projects(c), {tenant.id: tenant.name for tenant in tenants.listing(c)}
            found = policies.organisations(c)
        return page(
            [
                {"id": known, "name": name, "tenants": [names[t] for t, of in projects.items() if of == known]}
                for known, name in found.items()
            ],
            None,
        )

    return await caller.read(work)


@router.post("/organisations", status_code=201, responses={201: {"model": shapes.OrganisationView}})
async def add_organisation(caller: Caller, body: shapes.OrganisationRequest) -> Response:
    """A new organisation."""
    may_manage(caller)

    def work() -> Response:
        now_us = caller.yard.clock.now_us()
        made = new_id("og", now_us)
        with caller.yard.store.write() as c:
            policies.add_organisation(c, made, body.name, now_us)
            told = Event("organisation.added", made, now_us, None, caller.identity.user, {"name": body.name})
            events.append(c, [told])
        return answer({"id": made, "name": body.name, "tenants": []}, 201)

    return await caller.write(work)


@router.put("/tenants/{tenant}/organisation", status_code=204)
async def put_membership(caller: Caller, tenant: str, body: shapes.MembershipRequest) -> Response:
    """Makes a tenant a project of an organisation."""
    may_manage(caller)

    def work() -> Response:
        found = caller.tenant(tenant)
        organisation = subject_of(caller, "organisation", body.organisation)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            policies.put_project(c, found.id, organisation)
            data = {"organisation": organisation}
            events.append(c, [Event("tenant.assigned", found.id, now_us, found.id, caller.identity.user, data)])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)


@router.get("/quotas", responses={200: {"model": schemas.Page[shapes.QuotaView]}})
async def list_quotas(caller: Caller) -> Response:
    """Every quota, and how much of it is held."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = [
                {
                    "kind": kind,
                    "subject": subject,
                    "what": what,
                    "soft": soft,
                    "hard": hard,
                    "held": limits.held(c, kind, subject)[what],
                }
                for kind, subject, what, soft, hard in limits.quotas(c)
            ]
        return page(found, None)

    return await caller.read(work)


@router.put("/quotas", status_code=204)
async def put_quota(caller: Caller, body: shapes.QuotaRequest) -> Response:
    """Sets a quota; one without limits is taken away."""
    may_manage(caller)

    def work() -> Response:
        subject = subject_of(caller, body.kind, body.subject)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            limits.put_quota(c, body.kind, subject, body.what, body.soft, body.hard)
            data = {"kind": body.kind, "what": body.what, "soft": body.soft, "hard": body.hard}
            events.append(c, [Event("quota.set", subject, now_us, None, caller.identity.user, data)])
        return Response(status_code=204)

    return await caller.write(work)


@router.get("/geography")
async def show_geography(caller: Caller) -> Response:
    """Export classes, tenants' verified countries, and how many networks the operator's list has."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.read() as c:
            classes, residences = limits.export_classes(c), limits.countries(c)
            known = limits.networks(c)
        return answer(
            {
                "classes": [{"name": n, "card_models": models, "countries": at} for n, models, at in classes],
                "tenants": [
                    {
                        "tenant_id": tenant_id,
                        "country": country,
                        "verifier": verifier,
                        "evidence_sha256": evidence,
                        "expires_at": to_text(expires_us),
                    }
                    for tenant_id, (country, verifier, evidence, expires_us) in residences.items()
                ],
                "networks": sum(country is not None for country in known.values()),
                "trusted_proxies": [cidr for cidr, country in known.items() if country is None],
            }
        )

    return await caller.read(work)


@router.put("/export-classes/{name}", status_code=204)
async def put_export_class(caller: Caller, name: ClassName, body: shapes.ExportClassRequest) -> Response:
    """Says from which countries some card models may be used; without models the class is taken away."""
    may_manage(caller)

    def work() -> Response:
        countries = [check_country(each) for each in body.countries]
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            limits.put_export_class(c, name, body.card_models, countries)
            data = {"card_models": body.card_models, "countries": countries}
            events.append(c, [Event("export_class.set", name, now_us, None, caller.identity.user, data)])
        caller.yard.authority.forget()
        caller.yard.wake.set()
        return Response(status_code=204)

    return await caller.write(work)


@router.put("/tenants/{tenant}/country", status_code=204)
async def put_country(caller: Caller, tenant: str, body: shapes.CountryRequest) -> Response:
    """Writes down a tenant's country as it was verified, by whom, on what evidence, and until when that holds."""
    may_manage(caller)

    def work() -> Response:
        found, country = caller.tenant(tenant), check_country(body.country)
        now_us = caller.yard.clock.now_us()
        expires_us = from_text(body.expires_at)
        if expires_us <= now_us:
            raise YardError("invalid_time", value=body.expires_at)
        with caller.yard.store.write() as c:
            limits.put_country(c, found.id, country, body.verifier, body.evidence_sha256, expires_us)
            data = {"country": country, "verifier": body.verifier, "expires_at": to_text(expires_us)}
            events.append(c, [Event("tenant.country", found.id, now_us, found.id, caller.identity.user, data)])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)


@router.put("/networks", status_code=204)
async def put_networks(caller: Caller, body: shapes.NetworksRequest) -> Response:
    """The operator's list of networks and their countries, in the place of the one before."""
    may_manage(caller)

    def work() -> Response:
        found = {
            check_network(cidr): None if country is None else check_country(country)
            for cidr, country in body.networks.items()
        }
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            limits.put_networks(c, found)
            data = {"networks": len(found)}
            events.append(c, [Event("networks.set", "networks", now_us, None, caller.identity.user, data)])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)
