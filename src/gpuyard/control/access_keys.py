"""Access keys: made, looked up, revoked. A secret is shown once and lies sealed; see `sealing`."""

from __future__ import annotations

import secrets

from gpuyard.access.callers import KnownKey
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Identity, Role, Tenant
from gpuyard.store import access_keys, events
from gpuyard.store.access_keys import AccessKey

USED_EVERY_US = 3_600_000_000  # how exactly the last use of a key is known
_SECRET = "secret"  # noqa: S105
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def create(yard: Yard, tenant: Tenant, user: str, role: Role, actor: str) -> tuple[AccessKey, str]:
    """A new key and its secret, which nothing can show again."""
    now_us = yard.clock.now_us()
    key_id = "GYAK" + "".join(secrets.choice(_LETTERS) for _ in range(16))  # the shape that clients expect
    secret = secrets.token_urlsafe(30)  # 240 bits, 40 characters
    key = AccessKey(
        Identity(key_id, user, role, tenant.id), now_us, None, None, yard.sealer.seal({_SECRET: secret})[_SECRET]
    )
    with yard.store.write() as c:
        access_keys.insert(c, key)
        data = {"user": user, "role": role.value}
        events.append(c, [Event("access_key.added", key_id, now_us, tenant.id, actor, data)])
    return key, secret


def revoke(yard: Yard, key_id: str, actor: str) -> None:
    """Makes a key worthless at once.

    Raises YardError `access_key_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        if not access_keys.revoke(c, key_id, now_us):
            raise YardError("access_key_not_found", key=key_id[:80])
        events.append(c, [Event("access_key.revoked", key_id, now_us, None, actor)])
    yard.access_keys.clear()


def _is_in_force(identity: Identity, now_us: int) -> bool:
    return identity.expires_us is None or now_us < identity.expires_us


class StoredKeys:
    """The yard's key ring. Keys that are known stay in memory, opened, until one is revoked."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard

    def find(self, key_id: str) -> KnownKey | None:
        yard = self._yard
        known = yard.access_keys.get(key_id)
        if known is not None:
            return known if _is_in_force(known.identity, yard.clock.now_us()) else None
        generation = yard.store.generation
        with yard.store.read() as c:
            found = access_keys.find(c, key_id)
        if found is None or not _is_in_force(found.identity, yard.clock.now_us()):
            return None
        known = KnownKey(found.identity, yard.sealer.open({_SECRET: found.sealed})[_SECRET])
        if yard.store.generation == generation:  # a revocation meanwhile must not be forgotten
            yard.access_keys[key_id] = known  # keys that exist only: a guesser cannot fill this
        return known

    def used(self, key_id: str, now_us: int) -> None:
        """Writes a key's use down, to the hour."""
        with self._yard.store.write() as c:
            access_keys.used(c, key_id, now_us)
