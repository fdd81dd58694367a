"""Three words on how long each lease ran and on how much of a card: the event log's, the node's and the intervals'; and
where they differ. Card time is cards x microseconds, each spell of it rounded down."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from gpuyard.model.states import LeaseState
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.store.ledger_tables import ACCOUNTS, DISCREPANCIES, HOLDINGS, TRANSFERS, UNIT_TIMES
from gpuyard.store.tables import EVENTS, INTERVALS


@dataclass(frozen=True, slots=True)
class Holding:
    """How long a lease was active by the event log; `since_us` while it is. `card_us` None: for some of that time the
    log does not say how much of a card it held."""

    lease_id: str
    tenant_id: str
    active_us: int
    since_us: int | None
    spells: int
    share_ppm: int | None = None
    card_us: int | None = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """Time, card time (None: of some of it the share is not known), and in how many pieces."""

    us: int = 0
    card_us: int | None = 0
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A lease on which the three (or the ledger) differ. What one of them does not know is None: the node where it kept
    no record, card time where it was not written down."""

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
    scheduler_card_us: int | None = None
    node_card_us: int | None = None
    billed_card_us: int | None = None


_NOTE = text(
    "INSERT INTO unit_times (unit, lease_id, ran_us, ended, share_ppm) VALUES (:unit, :lease, :ran, true, :share) "
    "ON CONFLICT (unit) DO UPDATE SET ran_us = excluded.ran_us, share_ppm = excluded.share_ppm"
)
_HOLD = text(
    "INSERT INTO holdings (lease_id, tenant_id, active_us, since_us, spells, share_ppm, card_us) "
    "VALUES (:lease_id, :tenant_id, :active_us, :since_us, :spells, :share_ppm, :card_us) "
    "ON CONFLICT (lease_id) DO UPDATE SET active_us = excluded.active_us, since_us = excluded.since_us, "
    "spells = excluded.spells, share_ppm = excluded.share_ppm, card_us = excluded.card_us"
)
_STATES = [f"lease.{state.value}" for state in LeaseState]  # a notice, and what else is told of leases, changes none
PIECE = 500


def note_units(c: Connection, ran: Mapping[str, tuple[int, int | None]]) -> None:
    """What the node recorded of units that have ended: how long, and how much of a card. A unit's name is its lease's
    and the number of the attempt."""
    rows = [
        {"unit": unit, "lease": unit.rpartition("-")[0], "ran": us, "share": share} for unit, (us, share) in ran.items()
    ]
    c.execute(_NOTE, rows)


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """A change of a lease's state, as the event log has it."""

    sequence: int
    lease_id: str
    tenant_id: str
    at_us: int
    active: bool
    share_ppm: int | None  # None: the log of that time does not say


def lease_events(c: Connection, after: int, until: int, limit: int) -> list[LeaseEvent]:
    """Every change of a lease's state, in order."""
    query = (
        select(EVENTS.c.sequence, EVENTS.c.subject, EVENTS.c.tenant_id, EVENTS.c.at_us, EVENTS.c.kind, EVENTS.c.data)
        .where(EVENTS.c.sequence > after, EVENTS.c.sequence <= until, EVENTS.c.kind.in_(_STATES))
        .order_by(EVENTS.c.sequence)
        .limit(limit)
    )
    return [_event(*row) for row in c.execute(query)]


def _event(sequence: int, lease_id: str, tenant_id: str, at_us: int, kind: str, data: str) -> LeaseEvent:
    active = kind == f"lease.{LeaseState.ACTIVE.value}"
    share_ppm = json.loads(data).get("share_ppm") if active else None
    return LeaseEvent(sequence, lease_id, tenant_id, at_us, active, share_ppm)


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


def node_times(c: Connection, lease_ids: Collection[str]) -> dict[str, Ran]:
    """What the node recorded, by lease."""
    return _sums(c, UNIT_TIMES, UNIT_TIMES.c.ran_us, lease_ids, UNIT_TIMES.c.ended)


def billed_times(c: Connection, lease_ids: Collection[str]) -> dict[str, Ran]:
    """The intervals that were active, by lease."""
    return _sums(c, INTERVALS, INTERVALS.c.end_us - INTERVALS.c.start_us, lease_ids, INTERVALS.c.state == "active")


def _sums(c: Connection, table: Table, us: Any, keys: Collection[str], where: Any) -> dict[str, Ran]:
    wanted, found = sorted(keys), dict[str, Ran]()
    lease, share = table.c.lease_id, table.c.share_ppm
    for start in range(0, len(wanted), PIECE):
        mine = lease.in_(wanted[start : start + PIECE])
        for row in c.execute(
            select(lease, share, func.sum(us), func.count()).where(mine, where).group_by(lease, share)
        ):
            found[row[0]] = add(found.get(row[0], Ran()), int(row[2]), row[1], row[3])
    return found


def add(ran: Ran, us: int, share_ppm: int | None, pieces: int = 1) -> Ran:
    """With so much time more on that share of a card."""
    unknown = ran.card_us is None or share_ppm is None
    card_us = None if unknown else (ran.card_us or 0) + us * (share_ppm or 0) // SHARE_WHOLE_PPM
    return Ran(ran.us + us, card_us, ran.pieces + pieces)


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
