"""Tenants and tokens over HTTP."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.access.tokens import digest, new_token
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer, page
from gpuyard.control.money import make_bill
from gpuyard.control.settling import live_balance_nano
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.names import check_name, new_id
from gpuyard.model.tenants import Role, Tenant
from gpuyard.model.times import to_text
from gpuyard.model.units import format_money, parse_price
from gpuyard.store import events, tenants

router = APIRouter(tags=["tenants"])


def tenant_view(c: Connection, tenant: Tenant, yard: Yard) -> views.View:
    spent = make_bill(c, tenant.id, prices=yard.prices).total_nano
    return {
        "id": tenant.id,
        "name": tenant.name,
        "credit": None if tenant.credit_nano is None else format_money(tenant.credit_nano, 9),
        "spent": format_money(spent),
        "balance": None if tenant.credit_nano is None else format_money(live_balance_nano(c, yard, tenant), 9),
        "currency": tenant.currency,
        "created_at": to_text(tenant.created_us),
    }


@router.get("/whoami", responses={200: {"model": schemas.WhoAmIView}})
async def whoami(caller: Caller) -> Response:
    """Whom the token stands for."""

    def work() -> Response:
        identity = caller.identity
        return answer(
            {
                "user": identity.user,
                "role": identity.role.value,
                "tenant_id": identity.tenant_id,
                "tenant_name": caller.tenant(None).name,
                "token_id": identity.token_id,
            }
        )

    return await caller.read(work)


@router.get("/tenants", responses={200: {"model": schemas.Page[schemas.TenantView]}})
async def list_tenants(caller: Caller) -> Response:
    """All tenants for an operator; a member sees its own."""

    def work() -> Response:
        scope = caller.scope(None)
        with caller.yard.store.read() as c:
            found = [tenant for tenant in tenants.listing(c) if scope in (None, tenant.id)]
            return page([tenant_view(c, tenant, caller.yard) for tenant in found], None)

    return await caller.read(work)


@router.get("/tenants/{tenant}", responses={200: {"model": schemas.TenantView}})
async def show_tenant(caller: Caller, tenant: str) -> Response:
    """One tenant with its credit, what it has used and what is left."""

    def work() -> Response:
        found = caller.tenant(tenant)
        with caller.yard.store.read() as c:
            return answer(tenant_view(c, found, caller.yard))

    return await caller.read(work)


@router.post("/tenants", status_code=201, responses={201: {"model": schemas.TenantView}})
async def add_tenant(caller: Caller, body: schemas.TenantRequest) -> Response:
    """A new tenant, with credit or paying later."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        yard = caller.yard
        now_us = yard.clock.now_us()
        tenant = Tenant(
            id=new_id("tn", now_us),
            name=check_name(body.name),
            credit_nano=None if body.credit is None else parse_price(body.credit),
            currency=yard.book.currency,
            created_us=now_us,
        )
        with yard.store.write() as c:
            tenants.insert(c, tenant)
            told = Event("tenant.added", tenant.id, now_us, tenant.id, caller.identity.user, {"name": tenant.name})
            events.append(c, [told])
            return answer(tenant_view(c, tenant, yard), 201)

    return await caller.write(work)


@router.post("/tenants/{tenant}/credit", responses={200: {"model": schemas.TenantView}})
async def add_credit(caller: Caller, tenant: str, body: schemas.CreditRequest) -> Response:
    """Adds to a tenant's credit."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        yard = caller.yard
        amount = parse_price(body.amount)
        if amount == 0:
            raise YardError("invalid_price", value=body.amount)
        found = caller.tenant(tenant)
        now_us = yard.clock.now_us()
        with yard.store.write() as c:
            tenants.add_credit(c, found.id, amount, now_us)
            data = {"amount": format_money(amount, 9), "currency": found.currency}
            events.append(c, [Event("tenant.credited", found.id, now_us, found.id, caller.identity.user, data)])
            return answer(tenant_view(c, tenants.find(c, found.id) or found, yard))

    return await caller.write(work)


@router.get("/tokens", responses={200: {"model": schemas.Page[schemas.TokenView]}})
async def list_tokens(caller: Caller) -> Response:
    """Tokens, without what they are: only hashes are stored."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = tenants.tokens(c, None)
        return page(
            [
                {
                    "id": row.token_id,
                    "user": row.user,
                    "role": row.role.value,
                    "tenant_id": row.tenant_id,
                    "created_at": to_text(row.created_us),
                    "revoked": row.revoked_us is not None,
                    "expires_at": None if row.expires_us is None else to_text(row.expires_us),
                    "last_used_at": None if row.last_used_us is None else to_text(row.last_used_us),
                }
                for row in found
            ],
            None,
        )

    return await caller.read(work)


@router.post("/tokens", status_code=201, responses={201: {"model": schemas.NewTokenView}})
async def add_token(caller: Caller, body: schemas.TokenRequest) -> Response:
    """A new token; it is shown this once."""
    caller.must(Action.MANAGE_TOKENS, None)
    return await caller.write(lambda: answer(_add_token(caller, body), 201))


def _add_token(caller: Asking, body: schemas.TokenRequest) -> views.View:
    tenant = caller.tenant(body.tenant)
    now_us = caller.yard.clock.now_us()
    token, token_id = new_token(), new_id("tk", now_us)
    with caller.yard.store.write() as c:
        tenants.insert_token(c, token_id, tenant.id, body.user, Role(body.role), digest(token), now_us)
        data = {"user": body.user, "role": body.role}
        events.append(c, [Event("token.added", token_id, now_us, tenant.id, caller.identity.user, data)])
    return {
        "id": token_id,
        "user": body.user,
        "role": body.role,
        "tenant_id": tenant.id,
        "created_at": to_text(now_us),
        "revoked": False,
        "expires_at": None,
        "last_used_at": None,
        "token": token,
    }


@router.delete("/tokens/{token}", status_code=204)
async def revoke_token(caller: Caller, token: str) -> Response:
    """Makes a token worthless at once."""
    caller.must(Action.MANAGE_TOKENS, None)

    def work() -> Response:
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            if not tenants.revoke(c, token, now_us):
                raise YardError("token_not_found", token=token[:80])
            events.append(c, [Event("token.revoked", token, now_us, None, caller.identity.user)])
        caller.yard.identities.clear()
        return Response(status_code=204)

    return await caller.write(work)
