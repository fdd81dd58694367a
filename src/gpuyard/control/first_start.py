"""What a yard is given the first time: its name, and a token for its operator."""

from __future__ import annotations

from gpuyard.access.tokens import digest, new_token
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.names import new_id
from gpuyard.model.tenants import Role, Tenant
from gpuyard.store import events, meta, tenants
from gpuyard.store.database import Store


def yard_id(store: Store, now_us: int) -> str:
    """The yard's name, made where it has none."""
    with store.write() as c:
        known = meta.get(c, "yard_id")
        if known is None:
            known = new_id("yd", now_us)
            meta.put(c, "yard_id", known)
    return known


def first_token(yard: Yard) -> str | None:
    """A new operator's token where none was shown yet: a first start that was cut short shows one the next time."""
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        if meta.get(c, "operator_token_shown") is not None:
            return None
        tenant = tenants.find(c, "operators")
        if tenant is None:
            tenant = Tenant(new_id("tn", now_us), "operators", None, yard.book.currency, now_us)
            tenants.insert(c, tenant)
        for row in tenants.tokens(c, tenant.id):
            tenants.revoke(c, row.token_id, now_us)
        token, token_id = new_token(), new_id("tk", now_us)
        tenants.insert_token(c, token_id, tenant.id, "admin", Role.OPERATOR, digest(token), now_us)
        events.append(
            c, [Event("token.added", token_id, now_us, tenant.id, data={"user": "admin", "role": "operator"})]
        )
    return token


def mark_shown(yard: Yard, token: str | None) -> None:
    """The token was seen: there is no other from now on."""
    if token is not None:
        with yard.store.write() as c:
            meta.put(c, "operator_token_shown", "1")
