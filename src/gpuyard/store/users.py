"""Users of tenants. A token may also stand for a name that is no user here: those came first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, exc, select

from gpuyard.model.errors import YardError
from gpuyard.model.tenants import Role
from gpuyard.store.dialect_tables import ACCESS_KEYS
from gpuyard.store.tables import TOKENS
from gpuyard.store.user_tables import USERS

SESSION = "ss"  # how the ids of tokens begin that a sign-in gave


@dataclass(frozen=True, slots=True)
class User:
    """Somebody of a tenant. `kind` is `person` or `service`; a service account never has a password."""

    tenant_id: str
    name: str
    role: Role
    kind: str
    created_us: int
    disabled_us: int | None = None
    password: str | None = field(default=None, repr=False)


def insert(c: Connection, user: User) -> None:
    """Raises YardError `name_taken`."""
    try:
        c.execute(
            USERS.insert().values(
                tenant_id=user.tenant_id,
                name=user.name,
                role=user.role.value,
                kind=user.kind,
                created_us=user.created_us,
            )
        )
    except exc.IntegrityError:
        raise YardError("name_taken", name=user.name) from None


def listing(c: Connection) -> list[User]:
    """Every user, by tenant and name; disabled ones too."""
    return [_user(row) for row in c.execute(select(USERS).order_by(USERS.c.tenant_id, USERS.c.name))]


def find(c: Connection, tenant_id: str, name: str) -> User | None:
    """A user who is not disabled."""
    row = c.execute(_of(tenant_id, name).where(USERS.c.disabled_us.is_(None))).first()
    return None if row is None else _user(row)


def set_password(c: Connection, tenant_id: str, name: str, encoded: str) -> None:
    """Another password."""
    c.execute(_is(tenant_id, name).values(password=encoded))


def set_role(c: Connection, tenant_id: str, name: str, role: Role) -> None:
    """Another role; tokens that there are keep theirs."""
    c.execute(_is(tenant_id, name).values(role=role.value))


def disable(c: Connection, tenant_id: str, name: str, now_us: int) -> None:
    """Ends a user: no password, and every token and access key worthless."""
    c.execute(_is(tenant_id, name).values(disabled_us=now_us, password=None))
    tokens = TOKENS.update().where(
        TOKENS.c.tenant_id == tenant_id, TOKENS.c.user == name, TOKENS.c.revoked_us.is_(None)
    )
    c.execute(tokens.values(revoked_us=now_us))
    keys = ACCESS_KEYS.update().where(
        ACCESS_KEYS.c.tenant_id == tenant_id, ACCESS_KEYS.c.user == name, ACCESS_KEYS.c.revoked_us.is_(None)
    )
    c.execute(keys.values(revoked_us=now_us, sealed=b""))


def end_sessions(c: Connection, tenant_id: str, name: str, now_us: int) -> None:
    """Makes every token worthless that a sign-in of this user gave."""
    query = TOKENS.update().where(
        TOKENS.c.tenant_id == tenant_id,
        TOKENS.c.user == name,
        TOKENS.c.revoked_us.is_(None),
        TOKENS.c.id.like(f"{SESSION}-%"),
    )
    c.execute(query.values(revoked_us=now_us))


def _of(tenant_id: str, name: str) -> Select[Any]:
    return select(USERS).where(USERS.c.tenant_id == tenant_id, USERS.c.name == name)


def _is(tenant_id: str, name: str) -> Update:
    return USERS.update().where(USERS.c.tenant_id == tenant_id, USERS.c.name == name)


def _user(row: Row[Any]) -> User:
    return User(
        tenant_id=row.tenant_id,
        name=row.name,
        role=Role(row.role),
        kind=row.kind,
        created_us=row.created_us,
        disabled_us=row.disabled_us,
        password=row.password,
    )
