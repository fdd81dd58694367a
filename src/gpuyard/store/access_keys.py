"""Access keys. Their secrets come and go sealed: the key that opens them is not in the database."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from gpuyard.model.tenants import Identity, Role
from gpuyard.store.dialect_tables import ACCESS_KEYS


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key as it is stored."""

    identity: Identity  # `token_id` is the key's id
    created_us: int
    last_used_us: int | None
    revoked_us: int | None
    sealed: bytes = field(repr=False, default=b"")


def insert(c: Connection, key: AccessKey) -> None:
    """A new key."""
    who = key.identity
    c.execute(
        ACCESS_KEYS.insert().values(
            id=who.token_id,
            tenant_id=who.tenant_id,
            user=who.user,
            role=who.role.value,
            sealed=key.sealed,
            created_us=key.created_us,
        )
    )


def listing(c: Connection, tenant_id: str | None) -> list[AccessKey]:
    """Every key, or one tenant's, oldest first; revoked ones too."""
    query = select(ACCESS_KEYS).order_by(ACCESS_KEYS.c.created_us, ACCESS_KEYS.c.id)
    if tenant_id is not None:
        query = query.where(ACCESS_KEYS.c.tenant_id == tenant_id)
    return [_key(tuple(row)) for row in c.execute(query)]


def find(c: Connection, key_id: str) -> AccessKey | None:
    """A key by its id; None where it was revoked."""
    query = select(ACCESS_KEYS).where(ACCESS_KEYS.c.id == key_id, ACCESS_KEYS.c.revoked_us.is_(None))
    row = c.execute(query).first()
    return None if row is None else _key(tuple(row))


def used(c: Connection, key_id: str, now_us: int) -> None:
    """Writes down that it was used."""
    c.execute(ACCESS_KEYS.update().where(ACCESS_KEYS.c.id == key_id).values(last_used_us=now_us))


def revoke(c: Connection, key_id: str, now_us: int) -> bool:
    """Makes a key worthless and forgets its secret. False where there is none that was not revoked before."""
    query = ACCESS_KEYS.update().where(ACCESS_KEYS.c.id == key_id, ACCESS_KEYS.c.revoked_us.is_(None))
    return c.execute(query.values(revoked_us=now_us, sealed=b"")).rowcount == 1


def end(c: Connection, key_id: str, at_us: int) -> None:
    """Lets a key end by itself, unless it does so sooner."""
    ends = ACCESS_KEYS.c.expires_us
    query = ACCESS_KEYS.update().where(ACCESS_KEYS.c.id == key_id, (ends.is_(None)) | (ends > at_us))
    c.execute(query.values(expires_us=at_us))


def _key(row: tuple[object, ...]) -> AccessKey:
    key_id, tenant_id, user, role, sealed, created, used_us, revoked, expires = row
    return AccessKey(
        Identity(
            str(key_id), str(user), Role(str(role)), str(tenant_id), None if expires is None else int(str(expires))
        ),
        int(str(created)),
        None if used_us is None else int(str(used_us)),
        None if revoked is None else int(str(revoked)),
        bytes(sealed),  # type: ignore[call-overload, arg-type]
    )
