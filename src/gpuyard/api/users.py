"""Users of tenants over HTTP: people and service accounts, their passwords, and keys that are rotated."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.access_keys import key_view
from gpuyard.api.asking import Caller
from gpuyard.api.login import Logins, Password
from gpuyard.api.rendering import answer, page
from gpuyard.control import rotating, signing_in
from gpuyard.model.tenants import Role
from gpuyard.model.times import to_text
from gpuyard.store import tenants, users

router = APIRouter(tags=["users"])


class UserRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    user: schemas.UserName
    role: Literal["operator", "member", "viewer"] = "member"
    tenant: schemas.Short | None = None
    kind: Literal["person", "service"] = "person"


class UserView(BaseModel):
    user: str
    tenant_id: str
    tenant: str = Field(description="the tenant's name")
    role: str
    kind: str = Field(description="person, or service: one without a password, that holds tokens only")
    has_password: bool
    created_at: str
    disabled: bool


class PasswordRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    password: Password


class RotationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    keep_s: Annotated[int, Field(strict=True, ge=0, le=rotating.MOST_US // 1_000_000)] = Field(
        3600, description="for how many seconds what it replaces goes on"
    )


@router.get("/users", responses={200: {"model": schemas.Page[UserView]}})
async def list_users(caller: Caller) -> Response:
    """Every user, by tenant; disabled ones too."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            names = {tenant.id: tenant.name for tenant in tenants.listing(c)}
            return page([_view(user, names.get(user.tenant_id, "--")) for user in users.listing(c)], None)

    return await caller.read(work)


@router.post("/users", status_code=201, responses={201: {"model": UserView}})
async def add_user(caller: Caller, body: UserRequest) -> Response:
    """A person, who signs in once there is a password, or a service account."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        made = signing_in.new_user(caller.yard, tenant.id, body.user, Role(body.role), body.kind, caller.identity.user)
        return answer(_view(made, tenant.name), 201)

    return await caller.write(work)


@router.delete("/users/{user}", status_code=204)
async def disable_user(caller: Caller, user: str, tenant: str | None = None) -> Response:
    """Ends a user for good, with every token and access key. The name stays taken: the audit log tells of it."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        signing_in.disable(caller.yard, caller.tenant(tenant).id, user, caller.identity.user)
        return Response(status_code=204)

    return await caller.write(work)


@router.put("/users/{user}/password", status_code=204)
async def set_password(
    request: Request, caller: Caller, user: str, body: PasswordRequest, tenant: str | None = None
) -> Response:
    """Sets a person's password, for whoever runs the yard. Every session of the user ends."""
    caller.must(Action.MANAGE_TOKENS, None)
    logins: Logins = request.app.state.logins

    def work() -> None:
        with caller.yard.authority.auditor.carried():
            signing_in.set_password(caller.yard, caller.tenant(tenant).id, user, body.password, caller.identity.user)

    await logins.hash(work)
    return Response(status_code=204)


@router.post("/users/{user}/token", status_code=201, responses={201: {"model": schemas.NewTokenView}})
async def rotate_token(caller: Caller, user: str, body: RotationRequest, tenant: str | None = None) -> Response:
    """A new token of a service account, shown this once; those that it has go on for `keep_s`."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        yard = caller.yard
        who, token = rotating.rotate_token(
            yard, caller.tenant(tenant).id, user, body.keep_s * 1_000_000, caller.identity.user
        )
        view: views.View = {
            "id": who.token_id,
            "user": who.user,
            "role": who.role.value,
            "tenant_id": who.tenant_id,
            "created_at": to_text(yard.clock.now_us()),
            "revoked": False,
            "expires_at": None,
            "last_used_at": None,
            "token": token,
        }
        return answer(view, 201)

    return await caller.write(work)


@router.post("/access-keys/{key}/rotate", status_code=201, responses={201: {"model": schemas.NewAccessKeyView}})
async def rotate_access_key(caller: Caller, key: str, body: RotationRequest) -> Response:
    """A new access key for whom this one stands, its secret shown this once; this one goes on for `keep_s`."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        made, secret = rotating.rotate_access_key(caller.yard, key, body.keep_s * 1_000_000, caller.identity.user)
        return answer({**key_view(made), "secret": secret}, 201)

    return await caller.write(work)


def _view(user: users.User, tenant: str) -> views.View:
    return {
        "user": user.name,
        "tenant_id": user.tenant_id,
        "tenant": tenant,
        "role": user.role.value,
        "kind": user.kind,
        "has_password": user.password is not None,
        "created_at": to_text(user.created_us),
        "disabled": user.disabled_us is not None,
    }
