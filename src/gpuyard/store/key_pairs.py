"""Tenants' public keys, by name."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exc, select

from gpuyard.model.errors import YardError
from gpuyard.store.dialect_tables import KEY_PAIRS


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The public half: the private one is handed out once, or never seen."""

    tenant_id: str
    name: str
    id: str
    public_key: str  # as in authorized_keys
    fingerprint: str
    created_us: int


def insert(c: Connection, pair: KeyPair) -> None:
    """Raises YardError `name_taken`."""
    if find(c, pair.tenant_id, pair.name) is not None:
        raise YardError("name_taken", name=pair.name)
    try:
        c.execute(
            KEY_PAIRS.insert().values(
                tenant_id=pair.tenant_id,
                name=pair.name,
                id=pair.id,
                public_key=pair.public_key,
                fingerprint=pair.fingerprint,
                created_us=pair.created_us,
            )
        )
    except exc.IntegrityError:
        raise YardError("name_taken", name=pair.name) from None


def find(c: Connection, tenant_id: str, name: str) -> KeyPair | None:
    """A tenant's key pair by name."""
    row = c.execute(select(KEY_PAIRS).where(KEY_PAIRS.c.tenant_id == tenant_id, KEY_PAIRS.c.name == name)).first()
    return None if row is None else KeyPair(*row)


def listing(c: Connection, tenant_id: str) -> list[KeyPair]:
    """A tenant's key pairs by name."""
    query = select(KEY_PAIRS).where(KEY_PAIRS.c.tenant_id == tenant_id).order_by(KEY_PAIRS.c.name)
    return [KeyPair(*row) for row in c.execute(query)]


def delete(c: Connection, tenant_id: str, name: str) -> bool:
    """Forgets one; whether there was one."""
    query = KEY_PAIRS.delete().where(KEY_PAIRS.c.tenant_id == tenant_id, KEY_PAIRS.c.name == name)
    return c.execute(query).rowcount == 1
