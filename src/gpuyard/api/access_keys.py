"""Access keys over HTTP: what SDKs of EC2 and ECS sign with."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Caller
from gpuyard.api.rendering import answer, page
from gpuyard.control.access_keys import create, revoke
from gpuyard.model.tenants import Role
from gpuyard.model.times import to_text
from gpuyard.store import access_keys
from gpuyard.store.access_keys import AccessKey

router = APIRouter(tags=["access keys"])


def key_view(key: AccessKey) -> views.View:
    """A key without its secret."""
    return {
        "id": key.identity.token_id,
        "user": key.identity.user,
        "role": key.identity.role.value,
        "tenant_id": key.identity.tenant_id,
        "created_at": to_text(key.created_us),
        "last_used_at": None if key.last_used_us is None else to_text(key.last_used_us),
        "revoked": key.revoked_us is not None,
        "expires_at": None if key.identity.expires_us is None else to_text(key.identity.expires_us),
    }


@router.get("/access-keys", responses={200: {"model": schemas.Page[schemas.AccessKeyView]}})
async def list_access_keys(caller: Caller) -> Response:
    """Access keys, without their secrets: those lie sealed."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            return page([key_view(key) for key in access_keys.listing(c, None)], None)

    return await caller.read(work)


@router.post("/access-keys", status_code=201, responses={201: {"model": schemas.NewAccessKeyView}})
async def add_access_key(caller: Caller, body: schemas.TokenRequest) -> Response:
    """A new access key; its secret is shown this once."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        key, secret = create(caller.yard, tenant, body.user, Role(body.role), caller.identity.user)
        return answer({**key_view(key), "secret": secret}, 201)

    return await caller.write(work)


@router.delete("/access-keys/{key}", status_code=204)
async def revoke_access_key(caller: Caller, key: str) -> Response:
    """Makes an access key worthless at once, and forgets its secret."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        revoke(caller.yard, key, caller.identity.user)
        return Response(status_code=204)

    return await caller.write(work)
