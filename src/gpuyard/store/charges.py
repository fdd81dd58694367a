"""What was posted of every lease, what is held for it, and which leases have something new to post."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, text

from gpuyard.model.ledger import Charge
from gpuyard.store.ledger_tables import CHARGES, CHARGES_DUE
from gpuyard.store.tables import LEASES

_NAMES = [field.name for field in fields(Charge)]
_SAVE = text(
    f"INSERT INTO charges ({', '.join(_NAMES)}) VALUES ({', '.join(':' + name for name in _NAMES)}) "  # noqa: S608
    "ON CONFLICT (subject) DO UPDATE SET "
    + ", ".join(
        f"{name} = excluded.{name}" for name in _NAMES if name not in {"subject", "tenant_id", "offer", "currency"}
    )
)
_DUE = text("INSERT INTO charges_due (lease_id) VALUES (:id) ON CONFLICT (lease_id) DO NOTHING")
_DONE = CHARGES_DUE.delete().where(CHARGES_DUE.c.lease_id == bindparam("id"))
PIECE = 500  # names in one query


def load(c: Connection, subjects: Collection[str], lock: bool = False) -> dict[str, Charge]:
    """The charges of these subjects, to change them with `lock`; none for what was never charged."""
    wanted = sorted(subjects)
    found: dict[str, Charge] = {}
    for start in range(0, len(wanted), PIECE):
        piece = wanted[start : start + PIECE]
        query = select(CHARGES).where(CHARGES.c.subject.in_(piece)).order_by(CHARGES.c.subject)
        query = query.with_for_update() if lock else query
        found.update({row.subject: _charge(row) for row in c.execute(query)})
    return found


def of_tenant(c: Connection, tenant_id: str) -> dict[str, Charge]:
    """Every charge of a tenant, by subject."""
    return {row.subject: _charge(row) for row in c.execute(select(CHARGES).where(CHARGES.c.tenant_id == tenant_id))}


def every(c: Connection) -> list[Charge]:
    """All charges there are."""
    return [_charge(row) for row in c.execute(select(CHARGES).order_by(CHARGES.c.subject))]


def save(c: Connection, charges: Sequence[Charge]) -> None:
    """Writes them down as they are now."""
    if charges:
        c.execute(_SAVE, [{name: getattr(charge, name) for name in _NAMES} for charge in charges])


def mark_due(c: Connection, lease_id: str) -> None:
    """An interval of this lease was closed: it is posted soon, whatever happens to this process."""
    c.execute(_DUE, {"id": lease_id})


def due(c: Connection, limit: int) -> list[str]:
    """Leases with closed intervals that are not in the ledger yet."""
    return list(c.execute(select(CHARGES_DUE.c.lease_id).order_by(CHARGES_DUE.c.lease_id).limit(limit)).scalars())


_DUE_OF = text(
    "SELECT charges_due.lease_id FROM charges_due JOIN leases ON leases.id = charges_due.lease_id "
    "WHERE leases.tenant_id = :tenant"
)


def due_of(c: Connection, tenant_id: str) -> list[str]:
    """The same of one tenant."""
    return list(c.execute(_DUE_OF, {"tenant": tenant_id}).scalars())


def done(c: Connection, lease_ids: Sequence[str]) -> None:
    """They are in the ledger."""
    if lease_ids:
        c.execute(_DONE, [{"id": lease_id} for lease_id in lease_ids])


_LEFT = text(
    "SELECT charges.subject FROM charges LEFT JOIN leases ON leases.id = charges.subject "
    "WHERE charges.held_nano > 0 AND (leases.id IS NULL OR leases.state IN ('stopped', 'ended'))"
)


def held_for_nothing(c: Connection) -> list[str]:
    """Leases that money is held for and that no longer run."""
    return list(c.execute(_LEFT).scalars())


def lease_facts(c: Connection, lease_ids: Collection[str]) -> dict[str, tuple[str, int | None]]:
    """The state of these leases and their price an hour while they run (None before they were granted)."""
    wanted = sorted(lease_ids)
    found: dict[str, tuple[str, int | None]] = {}
    for start in range(0, len(wanted), PIECE):
        query = select(LEASES.c.id, LEASES.c.state, LEASES.c.terms_active_nano)
        rows = c.execute(query.where(LEASES.c.id.in_(wanted[start : start + PIECE])))
        found.update({row.id: (row.state, row.terms_active_nano) for row in rows})
    return found


def _charge(row: Row[Any]) -> Charge:
    return Charge(**{name: getattr(row, name) for name in _NAMES})
