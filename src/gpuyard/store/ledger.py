"""Transfers and balances. A batch is one statement whatever its size, and what is known already moves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, text

from gpuyard.model.events import Event
from gpuyard.model.ledger import AccountKind, Transfer, TransferKind, account, changes, check
from gpuyard.store import events
from gpuyard.store.ledger_tables import ACCOUNTS, TRANSFERS

_COLUMNS = ("id", "sequence", "at_us", "kind", "debit", "credit", "amount_nano", "currency", "tenant_id", "subject")
_NUMBERS = frozenset({"sequence", "at_us", "amount_nano", "balance_nano"})

# The row stays locked until the transaction ends, so that sequences are in the order of commits.
_TAKE = text(
    "INSERT INTO counters (name, value) VALUES ('transfers', :count) "
    "ON CONFLICT (name) DO UPDATE SET value = counters.value + :count RETURNING value"
)


def _batch(table: str, columns: Sequence[str], dialect: str) -> str:
    """INSERT ... SELECT of one parameter that holds all rows."""
    names = ", ".join(columns)
    if dialect == "sqlite":
        values = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(len(columns)))
        return f"INSERT INTO {table} ({names}) SELECT {values} FROM json_each(:rows) WHERE true "  # noqa: S608
    arrays = ", ".join(f"CAST(:{c} AS {'bigint' if c in _NUMBERS else 'text'}[])" for c in columns)
    return f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) "  # noqa: S608


_POST = {
    d: text(_batch("transfers", _COLUMNS, d) + "ON CONFLICT (id) DO NOTHING RETURNING id")
    for d in ("sqlite", "postgresql")
}
_ADD = {
    d: text(
        _batch("accounts", ("id", "balance_nano"), d)
        + "ON CONFLICT (id) DO UPDATE SET balance_nano = accounts.balance_nano + excluded.balance_nano"
    )
    for d in ("sqlite", "postgresql")
}


def _parameters(rows: Sequence[Sequence[object]], columns: Sequence[str], dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        return {"rows": json.dumps(rows)}
    return {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a batch: ids that are new, that were known alike, and that were known otherwise (refused)."""

    new: frozenset[str]
    known: frozenset[str]
    refused: frozenset[str]


def post(c: Connection, transfers: Sequence[Transfer]) -> Posted:
    """Writes transfers and moves the balances of those that are new.

    One whose id is known with another payload moves nothing and raises the alarm: the event `ledger.conflict`, in the
    same transaction. Raises ValueError for what no ledger may take.
    """
    wanted: dict[str, Transfer] = {}
    refused: set[str] = set()
    for transfer in transfers:
        check(transfer)
        if wanted.setdefault(transfer.id, transfer).payload != transfer.payload:
            refused.add(transfer.id)
    if not wanted:
        return Posted(frozenset(), frozenset(), frozenset())
    dialect = c.dialect.name
    last: int = c.execute(_TAKE, {"count": len(wanted)}).scalar_one()
    first = last - len(wanted) + 1
    rows = [
        (t.id, first + n, t.at_us, t.kind.value, t.debit, t.credit, t.amount_nano, t.currency, t.tenant_id, t.subject)
        for n, t in enumerate(wanted.values())
    ]
    new = frozenset(c.execute(_POST[dialect], _parameters(rows, _COLUMNS, dialect)).scalars())
    moved = changes(wanted[id_] for id_ in wanted if id_ in new)
    if moved:
        lines = sorted(moved.items())  # in one order always: two batches never wait for each other
        c.execute(_ADD[dialect], _parameters(lines, ("id", "balance_nano"), dialect))
    told_again = [id_ for id_ in wanted if id_ not in new]
    refused |= {id_ for id_, payload in _payloads(c, told_again) if payload != wanted[id_].payload}
    if refused:
        events.append(c, [_alarm(wanted[id_]) for id_ in sorted(refused)])
    return Posted(new, frozenset(told_again) - refused, frozenset(refused))


def _alarm(transfer: Transfer) -> Event:
    data = {"kind": transfer.kind.value, "amount_nano": transfer.amount_nano, "subject": transfer.subject}
    return Event("ledger.conflict", transfer.id, transfer.at_us, data=data)


def _payloads(c: Connection, ids: Sequence[str]) -> Iterator[tuple[str, tuple[object, ...]]]:
    for start in range(0, len(ids), 500):
        query = select(TRANSFERS).where(TRANSFERS.c.id.in_(ids[start : start + 500]))
        for row in c.execute(query):
            yield row.id, _transfer(row).payload


def find(c: Connection, transfer_id: str) -> Transfer | None:
    """One transfer by its id."""
    row = c.execute(select(TRANSFERS).where(TRANSFERS.c.id == transfer_id)).first()
    return None if row is None else _transfer(row)


def page(c: Connection, tenant_id: str | None, before: int | None, limit: int) -> list[tuple[int, Transfer]]:
    """(sequence, transfer), newest first, of one tenant or all."""
    query = select(TRANSFERS).order_by(TRANSFERS.c.sequence.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(TRANSFERS.c.tenant_id == tenant_id)
    if before is not None:
        query = query.where(TRANSFERS.c.sequence < before)
    return [(row.sequence, _transfer(row)) for row in c.execute(query)]


def every(c: Connection) -> Iterator[Transfer]:
    """All transfers in the order of posting, read piece by piece."""
    query = select(TRANSFERS).order_by(TRANSFERS.c.sequence).execution_options(yield_per=5000)
    for row in c.execute(query):
        yield _transfer(row)


def balances(c: Connection, names: Sequence[str] | None = None) -> dict[str, int]:
    """Balances by account: of these, with 0 for those that nothing moved, or of all there are."""
    query = select(ACCOUNTS.c.id, ACCOUNTS.c.balance_nano)
    if names is not None:
        query = query.where(ACCOUNTS.c.id.in_(names))
    found = {row.id: row.balance_nano for row in c.execute(query)}
    return found if names is None else {name: found.get(name, 0) for name in names}


def wallet(c: Connection, tenant_id: str, currency: str) -> tuple[int, int]:
    """What is in a tenant's wallet and what is held."""
    names = [account(kind, tenant_id, currency) for kind in (AccountKind.WALLET, AccountKind.HOLDS)]
    found = balances(c, names)
    return found[names[0]], found[names[1]]


def _transfer(row: Row[Any]) -> Transfer:
    return Transfer(
        id=row.id,
        at_us=row.at_us,
        kind=TransferKind(row.kind),
        debit=row.debit,
        credit=row.credit,
        amount_nano=row.amount_nano,
        currency=row.currency,
        tenant_id=row.tenant_id,
        subject=row.subject,
    )
