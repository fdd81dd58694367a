"""Three words on how long each lease ran: the event log's, the node's and the intervals'; and where they differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, text

from gpuyard.model.states import LeaseState
from gpuyard.store.ledger_tables import ACCOUNTS, DISCREPANCIES, HOLDINGS, TRANSFERS, UNIT_TIMES
from gpuyard.store.tables import EVENTS, INTERVALS


@dataclass(frozen=True, slots=True)
class Holding:
    """How long a lease was active by the event log; `since_us` while it is."""

    lease_id: str
    tenant_id: str
    active_us: int
    since_us: int | None
    spells: int


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A lease on which the three (or the ledger) differ. `node_us` None: the node kept no record."""

    id: str
    lease_id: str
    tenant_id: str
    found_us: int
    scheduler_us: int
    node_us: int | None
    billed_us: int
    posted_nano: int
    rated_nano: int
    resolved_us: int | None = None


_NOTE = text(
    "INSERT INTO unit_times (unit, lease_id, ran_us, ended) VALUES (:unit, :lease, :ran, true) "
    "ON CONFLICT (unit) DO UPDATE SET ran_us = excluded.ran_us"
)
_HOLD = text(
    "INSERT INTO holdings (lease_id, tenant_id, active_us, since_us, spells) "
    "VALUES (:lease_id, :tenant_id, :active_us, :since_us, :spells) ON CONFLICT (lease_id) DO UPDATE SET "
    "active_us = excluded.active_us, since_us = excluded.since_us, spells = excluded.spells"
)
_STATES = [f"lease.{state.value}" for state in LeaseState]  # a notice, and what else is told of leases, changes none
PIECE = 500


def note_units(c: Connection, ran_us: Mapping[str, int]) -> None:
    """What the node recorded of units that have ended. A unit's name is its lease's and the number of the attempt."""
    c.execute(_NOTE, [{"unit": u, "lease": u.rpartition("-")[0], "ran": ran} for u, ran in ran_us.items()])


def lease_events(c: Connection, after: int, until: int, limit: int) -> list[tuple[int, str, str, str, int]]:
    """(sequence, kind, lease, tenant, moment) of every change of a lease's state, in order."""
    query = (
        select(EVENTS.c.sequence, EVENTS.c.kind, EVENTS.c.subject, EVENTS.c.tenant_id, EVENTS.c.at_us)
        .where(EVENTS.c.sequence > after, EVENTS.c.sequence <= until, EVENTS.c.kind.in_(_STATES))
        .order_by(EVENTS.c.sequence)
        .limit(limit)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in c.execute(query)]


def holdings(c: Connection, lease_ids: Collection[str] | None = None) -> dict[str, Holding]:
    """Holdings of these leases, or of all."""
    if lease_ids is None:
        return {row.lease_id: Holding(*row) for row in c.execute(select(HOLDINGS))}
    wanted, found = sorted(lease_ids), dict[str, Holding]()
    for start in range(0, len(wanted), PIECE):
        query = select(HOLDINGS).where(HOLDINGS.c.lease_id.in_(wanted[start : start + PIECE]))
        found.update({row.lease_id: Holding(*row) for row in c.execute(query)})
    return found


def keep_holdings(c: Connection, changed: Sequence[Holding]) -> None:
    """Writes holdings down."""
    if changed:
        names = Holding.__slots__
        c.execute(_HOLD, [{name: getattr(each, name) for name in names} for each in changed])


def node_times(c: Connection, lease_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    """(time, number of units) that the node recorded, by lease."""
    return _sums(c, UNIT_TIMES.c.lease_id, UNIT_TIMES.c.ran_us, lease_ids, UNIT_TIMES.c.ended)


def billed_times(c: Connection, lease_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    """(time, number of intervals) that were active, by lease."""
    duration = INTERVALS.c.end_us - INTERVALS.c.start_us
    return _sums(c, INTERVALS.c.lease_id, duration, lease_ids, INTERVALS.c.state == "active")


def _sums(c: Connection, key: Any, value: Any, keys: Collection[str], where: Any) -> dict[str, tuple[int, int]]:
    wanted, found = sorted(keys), dict[str, tuple[int, int]]()
    for start in range(0, len(wanted), PIECE):
        piece = wanted[start : start + PIECE]
        query = select(key, func.sum(value), func.count()).where(key.in_(piece), where).group_by(key)
        found.update({row[0]: (int(row[1]), row[2]) for row in c.execute(query)})
    return found


def open_discrepancies(c: Connection) -> dict[str, Discrepancy]:
    """Those that were not resolved, by lease."""
    query = select(DISCREPANCIES).where(DISCREPANCIES.c.resolved_us.is_(None))
    return {row.lease_id: Discrepancy(*row) for row in c.execute(query)}


def listing(c: Connection, limit: int) -> list[Discrepancy]:
    """All, newest first."""
    query = select(DISCREPANCIES).order_by(DISCREPANCIES.c.found_us.desc(), DISCREPANCIES.c.id).limit(limit)
    return [Discrepancy(*row) for row in c.execute(query)]


def insert(c: Connection, found: Discrepancy) -> None:
    """Keeps a new one."""
    c.execute(DISCREPANCIES.insert().values({name: getattr(found, name) for name in Discrepancy.__slots__}))


def resolve(c: Connection, discrepancy_id: str, now_us: int) -> None:
    """It is no more."""
    c.execute(DISCREPANCIES.update().where(DISCREPANCIES.c.id == discrepancy_id).values(resolved_us=now_us))


def ledger_faults(c: Connection) -> list[str]:
    """Accounts whose balance is not what the transfers make it, and currencies whose accounts do not add up to 0."""
    sums: dict[str, int] = {}
    for column, sign in ((TRANSFERS.c.credit, 1), (TRANSFERS.c.debit, -1)):
        for row in c.execute(select(column, func.sum(TRANSFERS.c.amount_nano)).group_by(column)):
            sums[row[0]] = sums.get(row[0], 0) + sign * int(row[1])
    live = {row.id: row.balance_nano for row in c.execute(select(ACCOUNTS))}
    wrong = [
        f"{name}: {live.get(name, 0)} instead of {sums.get(name, 0)}"
        for name in sorted(live.keys() | sums.keys())
        if live.get(name, 0) != sums.get(name, 0)
    ]
    totals: dict[str, int] = {}
    for name, balance in live.items():
        currency = name.rpartition(":")[2]
        totals[currency] = totals.get(currency, 0) + balance
    return wrong + [f"{currency}: {total}" for currency, total in sorted(totals.items()) if total]


def dump(found: Discrepancy) -> dict[str, object]:
    """What an event says of it."""
    return {name: getattr(found, name) for name in Discrepancy.__slots__ if name not in {"tenant_id", "resolved_us"}}
