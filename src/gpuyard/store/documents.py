"""Invoices and credit notes, as text that never changes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from gpuyard.store.money_tables import DOCUMENTS


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """`body` is canonical JSON; what else stands here is for finding it."""

    sequence: int
    number: str
    kind: str
    tenant_id: str
    until_us: int
    corrects: str
    hash: str
    body: str


def insert(c: Connection, document: StoredDocument) -> None:
    """Adds one. Its sequence must be the next: the database refuses a second one of the same."""
    c.execute(
        DOCUMENTS.insert(),
        {
            "sequence": document.sequence,
            "number": document.number,
            "kind": document.kind,
            "tenant_id": document.tenant_id,
            "until_us": document.until_us,
            "corrects": document.corrects,
            "hash": document.hash,
            "body": document.body,
        },
    )


def newest(c: Connection) -> tuple[int, str]:
    """Sequence and hash of the last one; (0, "") where there is none."""
    query = select(DOCUMENTS.c.sequence, DOCUMENTS.c.hash).order_by(DOCUMENTS.c.sequence.desc()).limit(1)
    row = c.execute(query).first()
    return (0, "") if row is None else (row.sequence, row.hash)


def listing(
    c: Connection, tenant_id: str | None = None, before: int | None = None, limit: int | None = None
) -> list[StoredDocument]:
    """In the order of issue; with a limit the newest ones first, older than sequence `before`."""
    newest_first = limit is not None
    query = select(DOCUMENTS).order_by(DOCUMENTS.c.sequence.desc() if newest_first else DOCUMENTS.c.sequence)
    if tenant_id is not None:
        query = query.where(DOCUMENTS.c.tenant_id == tenant_id)
    if before is not None:
        query = query.where(DOCUMENTS.c.sequence < before)
    if limit is not None:
        query = query.limit(limit)
    return [StoredDocument(*row) for row in c.execute(query)]


def find(c: Connection, number: str) -> StoredDocument | None:
    """One by its number."""
    row = c.execute(select(DOCUMENTS).where(DOCUMENTS.c.number == number)).first()
    return None if row is None else StoredDocument(*row)
