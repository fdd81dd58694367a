"""The audit log's rows: entries in commit order without a gap, checkpoints, and the keys of whom they are about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from gpuyard.model.errors import YardError
from gpuyard.store.access_tables import AUDIT, AUDIT_CHECKPOINTS, AUDIT_SUBJECTS

# The counter's row stays locked until the transaction ends: numbers have no gap and commit in their order.
_TAKE = text("UPDATE counters SET value = value + :count WHERE name = 'audit' RETURNING value")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of the log's size and root; `frontier` is what the tree needs to grow on from there."""

    size: int
    at_us: int
    frontier: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom entries are about. Without a name and key after it was shredded."""

    id: str
    tenant_id: str
    name: str | None
    sealed_key: bytes | None


_ADD = AUDIT.insert()


def append(c: Connection, entries: Sequence[tuple[int, str, Callable[[int], str]]]) -> None:
    """Adds entries: when, whose, and what makes the leaf once its number is known. Numbers begin with 0."""
    if not entries:
        return
    after: int = c.execute(_TAKE, {"count": len(entries)}).scalar_one()
    first = after - len(entries)
    rows = [
        {"sequence": first + n, "at_us": at_us, "tenant_id": tenant_id, "leaf": leaf(first + n)}
        for n, (at_us, tenant_id, leaf) in enumerate(entries)
    ]
    c.execute(_ADD, rows)


def size(c: Connection) -> int:
    """How many entries there are."""
    return c.execute(text("SELECT value FROM counters WHERE name = 'audit'")).scalar_one()


def leaves(c: Connection, first: int, last: int) -> Iterator[str]:
    """The entries from `first` up to and without `last`."""
    query = select(AUDIT.c.leaf).where(AUDIT.c.sequence >= first, AUDIT.c.sequence < last).order_by(AUDIT.c.sequence)
    return (row.leaf for row in c.execute(query))


def since(c: Connection, at_us: int, limit: int) -> list[str]:
    """Entries from a moment on, oldest first."""
    query = select(AUDIT.c.leaf).where(AUDIT.c.at_us >= at_us).order_by(AUDIT.c.sequence).limit(limit)
    return [row.leaf for row in c.execute(query)]


def add_checkpoint(c: Connection, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint down."""
    roots = json.dumps([root.hex() for root in checkpoint.frontier])
    values = {"size": checkpoint.size, "at_us": checkpoint.at_us, "frontier": roots, "note": checkpoint.note}
    c.execute(AUDIT_CHECKPOINTS.insert().values(values))


def newest_checkpoint(c: Connection) -> Checkpoint | None:
    """The checkpoint of the largest tree."""
    row = c.execute(select(AUDIT_CHECKPOINTS).order_by(AUDIT_CHECKPOINTS.c.size.desc()).limit(1)).first()
    if row is None:
        return None
    return Checkpoint(row.size, row.at_us, tuple(bytes.fromhex(root) for root in json.loads(row.frontier)), row.note)


def subject(c: Connection, tenant_id: str, name: str) -> Subject | None:
    """By whom it is."""
    query = select(AUDIT_SUBJECTS).where(AUDIT_SUBJECTS.c.tenant_id == tenant_id, AUDIT_SUBJECTS.c.name == name)
    row = c.execute(query).first()
    return None if row is None else Subject(row.id, row.tenant_id, row.name, row.key)


def subjects(c: Connection) -> list[Subject]:
    """Everyone, those who were shredded included."""
    return [Subject(row.id, row.tenant_id, row.name, row.key) for row in c.execute(select(AUDIT_SUBJECTS))]


def add_subject(c: Connection, added: Subject) -> None:
    """A subject with its sealed key."""
    c.execute(
        AUDIT_SUBJECTS.insert().values(id=added.id, tenant_id=added.tenant_id, name=added.name, key=added.sealed_key)
    )


def shred(c: Connection, tenant_id: str, name: str, now_us: int) -> str:
    """Deletes the key and the name: what the log holds of them cannot be read again, and its proofs go on holding.

    Raises YardError `not_found`.
    """
    found = subject(c, tenant_id, name)
    if found is None:
        raise YardError("not_found", path=name)
    gone = AUDIT_SUBJECTS.update().where(AUDIT_SUBJECTS.c.id == found.id)
    c.execute(gone.values(name=None, key=None, shredded_us=now_us))
    return found.id


def tenant_of(c: Connection, sequence: int) -> str | None:
    """Whose user asked."""
    return c.execute(select(AUDIT.c.tenant_id).where(AUDIT.c.sequence == sequence)).scalar()
