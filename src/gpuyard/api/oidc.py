"""Login by an OpenID provider over HTTP, and which provider that is."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from gpuyard.api import schemas, views
from gpuyard.api.access import may_manage
from gpuyard.api.asking import Caller, origin_of
from gpuyard.api.login import Logins, SessionView, session_view
from gpuyard.api.rendering import answer
from gpuyard.control import oidc_settings
from gpuyard.control.oidc import Provider
from gpuyard.control.oidc_settings import OidcSettings
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Role
from gpuyard.store import events, tenants

router = APIRouter(tags=["users"])

Word = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
# RFC 8252: a native app listens on loopback, on whatever port is free.
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):[0-9]{1,5}/callback")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OidcRequest(_Strict):
    issuer: Annotated[str, StringConstraints(max_length=500, pattern=r"^https://[^\x00-\x20]+$")]
    client_id: Word
    client_secret: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = Field(
        None, description="of a confidential client; a public one has none"
    )
    scopes: Word = "openid email profile groups"
    user_claim: Word = Field("sub", description="what names a user for good; email only where it is verified")
    groups_claim: Word = "groups"


class GroupRequest(_Strict):
    group: Word
    tenant: schemas.Short
    role: Literal["operator", "member", "viewer"] | None = Field(description="null takes the group's role away")


class OidcView(BaseModel):
    issuer: str | None = Field(description="null: nobody signs in by a provider")
    client_id: str | None
    has_secret: bool
    scopes: str | None
    user_claim: str | None
    groups_claim: str | None
    groups: list[dict[str, str]]


class BeginView(BaseModel):
    issuer: str
    authorization_endpoint: str
    client_id: str
    scope: str
    nonce: str = Field(description="for the provider, and to finish with; good for ten minutes and once")


class FinishRequest(_Strict):
    code: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    code_verifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{43,128}$")]
    redirect_uri: Annotated[str, StringConstraints(max_length=200)]
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}$")]
    tenant: schemas.Short | None = None


@router.get("/oidc", responses={200: {"model": OidcView}})
async def show_oidc(caller: Caller) -> Response:
    """The login provider, and what its groups may do here."""
    may_manage(caller)
    return await caller.read(lambda: answer(_view(caller.yard)))


@router.put("/oidc", responses={200: {"model": OidcView}})
async def put_oidc(caller: Caller, body: OidcRequest) -> Response:
    """Sets the login provider."""
    may_manage(caller)
    yard = caller.yard
    sealed = "" if body.client_secret is None else yard.sealer.seal({"secret": body.client_secret})["secret"].decode()
    made = OidcSettings(body.issuer, body.client_id, sealed, body.scopes, body.user_claim, body.groups_claim)

    def work() -> Response:
        with yard.store.write() as c:
            oidc_settings.put(c, made)
            data = {"issuer": body.issuer, "client_id": body.client_id}
            events.append(c, [Event("oidc.set", "oidc", yard.clock.now_us(), None, caller.identity.user, data)])
        return answer(_view(yard))

    return await caller.write(work)


@router.delete("/oidc", status_code=204)
async def remove_oidc(caller: Caller) -> Response:
    """Nobody signs in by a provider any more. Sessions that there are go on until they end."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.write() as c:
            oidc_settings.put(c, None)
            now_us = caller.yard.clock.now_us()
            events.append(c, [Event("oidc.removed", "oidc", now_us, None, caller.identity.user, {})])
        return Response(status_code=204)

    return await caller.write(work)


@router.put("/oidc/groups", responses={200: {"model": OidcView}})
async def put_group(caller: Caller, body: GroupRequest) -> Response:
    """What whoever is in a group of the provider may do in a tenant, from their next login on."""
    may_manage(caller)

    def work() -> Response:
        found = caller.tenant(body.tenant)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            oidc_settings.put_group(c, body.group, found.id, None if body.role is None else Role(body.role))
            data = {"group": body.group, "role": body.role or "--"}
            events.append(c, [Event("oidc.group_set", "oidc", now_us, found.id, caller.identity.user, data)])
        return answer(_view(caller.yard))

    return await caller.write(work)


@router.get("/login/oidc", responses={200: {"model": BeginView}})
async def begin(request: Request) -> Response:
    """What a terminal needs to send a person to the provider. Needs no token."""
    provider: Provider = request.app.state.provider
    address = origin_of(provider.yard, request).address
    logins: Logins = request.app.state.provider_logins
    return answer(await logins.attempt(address, f"begin {address}", provider.begin))


@router.post("/login/oidc", responses={200: {"model": SessionView}})
async def finish(request: Request, body: FinishRequest) -> Response:
    """A token for twelve hours, for a code that the provider gave. Needs no token."""
    provider: Provider = request.app.state.provider
    logins: Logins = request.app.state.provider_logins
    if _LOOPBACK.fullmatch(body.redirect_uri) is None:
        raise YardError("oidc_failed", reason="the redirect is not to this machine's loopback")
    address = origin_of(provider.yard, request).address

    def work() -> Response:
        tenant = None
        if body.tenant is not None:
            with provider.yard.store.read() as c:
                found = tenants.find(c, body.tenant)
            tenant = found.id if found is not None else "--"
        return answer(
            session_view(
                *provider.finish(body.code, body.code_verifier, body.redirect_uri, body.nonce, tenant, address)
            )
        )

    return await logins.attempt(address, f"finish {address}", work)


def _view(yard: Yard) -> views.View:
    with yard.store.read() as c:
        found, table = oidc_settings.read(c), oidc_settings.groups(c)
    return {
        "issuer": found and found.issuer,
        "client_id": found and found.client_id,
        "has_secret": found is not None and bool(found.sealed_secret),
        "scopes": found and found.scopes,
        "user_claim": found and found.user_claim,
        "groups_claim": found and found.groups_claim,
        "groups": [{"group": row.group, "tenant_id": row.tenant_id, "role": row.role.value} for row in table],
    }
