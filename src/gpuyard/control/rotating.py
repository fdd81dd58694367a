"""Keys that are replaced: the next one is made, and the one before goes on for a while so that nothing stands still."""

from __future__ import annotations

from gpuyard.access.tokens import digest, new_token
from gpuyard.control.access_keys import create
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.names import new_id
from gpuyard.model.tenants import Identity
from gpuyard.store import access_keys, events, tenants, users
from gpuyard.store.access_keys import AccessKey

MOST_US = 30 * 86_400_000_000  # that an old key may go on for


def rotate_token(yard: Yard, tenant_id: str, name: str, keep_us: int, actor: str) -> tuple[Identity, str]:
    """A new token of a service account; those that it has end after `keep_us`.

    Raises YardError `user_not_found`.
    """
    now_us = yard.clock.now_us()
    token = new_token()
    with yard.store.write() as c:
        user = users.find(c, tenant_id, name)
        if user is None or user.kind != "service":
            raise YardError("user_not_found", user=name[:100])
        tenants.end_tokens(c, tenant_id, name, now_us + keep_us)
        who = Identity(new_id("tk", now_us), name, user.role, tenant_id)
        tenants.insert_token(c, who.token_id, tenant_id, name, user.role, digest(token), now_us)
        data = {"user": name, "role": user.role.value}
        events.append(c, [Event("token.rotated", who.token_id, now_us, tenant_id, actor, data)])
    yard.identities.clear()
    return who, token


def rotate_access_key(yard: Yard, key_id: str, keep_us: int, actor: str) -> tuple[AccessKey, str]:
    """A new access key for whom this one stands; this one ends after `keep_us`.

    Raises YardError `access_key_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.read() as c:
        old = access_keys.find(c, key_id)
    if old is None or (old.identity.expires_us or now_us + 1) <= now_us:
        raise YardError("access_key_not_found", key=key_id[:80])
    with yard.store.read() as c:
        tenant = tenants.find(c, old.identity.tenant_id)
    if tenant is None:
        raise YardError("tenant_not_found", tenant=old.identity.tenant_id)
    made = create(yard, tenant, old.identity.user, old.identity.role, actor)
    # Cut short here, both keys are in force and nobody has seen the new one: to rotate again does no harm.
    with yard.store.write() as c:
        access_keys.end(c, key_id, now_us + keep_us)
        data = {"replaced_by": made[0].identity.token_id}
        events.append(c, [Event("access_key.rotated", key_id, now_us, tenant.id, actor, data)])
    yard.access_keys.clear()
    return made
