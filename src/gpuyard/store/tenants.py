"""Tenants and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, exc, func, or_, select

from gpuyard.model.errors import YardError
from gpuyard.model.ledger import AccountKind, TransferKind
from gpuyard.model.names import new_id
from gpuyard.model.tenants import Identity, Role, Tenant
from gpuyard.store import wallets
from gpuyard.store.ledger_tables import ACCOUNTS, WALLETS
from gpuyard.store.tables import TENANTS, TOKENS


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token without what it is."""

    token_id: str
    tenant_id: str
    user: str
    role: Role
    created_us: int
    revoked_us: int | None
    expires_us: int | None = None
    last_used_us: int | None = None


def insert(c: Connection, tenant: Tenant) -> None:
    """Raises YardError `name_taken`."""
    if find(c, tenant.name) is not None:
        raise YardError("name_taken", name=tenant.name)
    try:
        c.execute(
            TENANTS.insert().values(
                id=tenant.id,
                name=tenant.name,
                currency=tenant.currency,
                created_us=tenant.created_us,
            )
        )
    except exc.IntegrityError:
        raise YardError("name_taken", name=tenant.name) from None
    if tenant.credit_nano is not None:
        opening = (f"opening:{tenant.id}", tenant.created_us)
        wallets.fund(c, tenant.id, tenant.currency, TransferKind.OPENING, opening, tenant.credit_nano)


# Credit is what was put into the wallet: what its sources gave. The ledger alone knows it.
_CASH, _GIVEN = ACCOUNTS.alias("cash"), ACCOUNTS.alias("given")
_READ = (
    select(
        TENANTS,
        WALLETS.c.prepaid,
        (-func.coalesce(_CASH.c.balance_nano, 0) - func.coalesce(_GIVEN.c.balance_nano, 0)).label("credit_nano"),
    )
    .outerjoin(WALLETS, WALLETS.c.tenant_id == TENANTS.c.id)
    .outerjoin(_CASH, _CASH.c.id == f"{AccountKind.CASH.value}:" + TENANTS.c.id + ":" + TENANTS.c.currency)
    .outerjoin(_GIVEN, _GIVEN.c.id == f"{AccountKind.PROMOTIONS.value}:" + TENANTS.c.id + ":" + TENANTS.c.currency)
)


_FIND = _READ.where(or_(TENANTS.c.id == bindparam("wanted"), TENANTS.c.name == bindparam("wanted"))).order_by(
    case((TENANTS.c.id == bindparam("wanted"), 0), else_=1)  # nobody takes an id over by its name
)


def find(c: Connection, id_or_name: str) -> Tenant | None:
    """A tenant by its id or its name."""
    row = c.execute(_FIND, {"wanted": id_or_name}).first()
    return None if row is None else _tenant(row)


def listing(c: Connection) -> list[Tenant]:
    """Every tenant, oldest first."""
    return [_tenant(row) for row in c.execute(_READ.order_by(TENANTS.c.id))]


def add_credit(c: Connection, tenant_id: str, nano: int, at_us: int = 0, transfer_id: str | None = None) -> None:
    """Adds to a tenant's credit; one that paid later so far has credit from now on.

    Raises YardError `tenant_not_found`, `payment_conflict`, and `invalid_price` where it would be more than can be
    kept.
    """
    currency = c.execute(select(TENANTS.c.currency).where(TENANTS.c.id == tenant_id)).scalar()
    if currency is None:
        raise YardError("tenant_not_found", tenant=tenant_id)
    transfer = (transfer_id or new_id("tr", at_us), at_us)
    wallets.fund(c, tenant_id, currency, TransferKind.TOP_UP, transfer, nano)


def insert_token(
    c: Connection,
    token_id: str,
    tenant_id: str,
    user: str,
    role: Role,
    digest: str,
    now_us: int,
    expires_us: int | None = None,
) -> None:
    """Stores the hash of a token."""
    c.execute(
        TOKENS.insert().values(
            id=token_id,
            tenant_id=tenant_id,
            user=user,
            role=role.value,
            digest=digest,
            created_us=now_us,
            expires_us=expires_us,
        )
    )


def end_tokens(c: Connection, tenant_id: str, user: str, at_us: int) -> None:
    """Lets every token of a user end by itself, unless it does so sooner."""
    ends = TOKENS.c.expires_us
    query = TOKENS.update().where(TOKENS.c.tenant_id == tenant_id, TOKENS.c.user == user)
    c.execute(query.where(ends.is_(None) | (ends > at_us)).values(expires_us=at_us))


def note_uses(c: Connection, uses: Mapping[str, int]) -> None:
    """When tokens, by id, were last used."""
    for token_id, at_us in uses.items():
        c.execute(TOKENS.update().where(TOKENS.c.id == token_id).values(last_used_us=at_us))


_IDENTITY = select(
    TOKENS.c.id, TOKENS.c.tenant_id, TOKENS.c.user, TOKENS.c.role, TOKENS.c.revoked_us, TOKENS.c.expires_us
)


def identity(c: Connection, digest: str) -> Identity | None:
    """Whom a token stands for, unless it was revoked."""
    row = c.execute(_IDENTITY.where(TOKENS.c.digest == digest)).first()
    if row is None or row.revoked_us is not None:
        return None
    return Identity(row.id, row.user, Role(row.role), row.tenant_id, row.expires_us)


def revoke(c: Connection, token_id: str, now_us: int) -> bool:
    """Whether there was such a token that was not yet revoked."""
    query = TOKENS.update().where(TOKENS.c.id == token_id, TOKENS.c.revoked_us.is_(None)).values(revoked_us=now_us)
    return c.execute(query).rowcount == 1


def tokens(c: Connection, tenant_id: str | None) -> list[TokenRow]:
    """Tokens, oldest first; of one tenant or of all."""
    query = select(TOKENS).order_by(TOKENS.c.id)
    if tenant_id is not None:
        query = query.where(TOKENS.c.tenant_id == tenant_id)
    return [
        TokenRow(
            row.id,
            row.tenant_id,
            row.user,
            Role(row.role),
            row.created_us,
            row.revoked_us,
            row.expires_us,
            row.last_used_us,
        )
        for row in c.execute(query)
    ]


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.id, row.name, row.credit_nano if row.prepaid else None, row.currency, row.created_us)
