"""What units sent: how far each lease's counter had come, and what that came to day by day."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from gpuyard.store.egress_tables import EGRESS_COUNTERS, EGRESS_DAYS

PIECE = 500


@dataclass(frozen=True, slots=True)
class Counter:
    """How far the counter of a lease's newest unit had come when it was last read, and at which price that run sends.
    `bytes_out` None: nothing yet, and what it says first was sent before anybody counted."""

    lease_id: str
    unit: str
    run: int
    price_per_gib_nano: int
    bytes_out: int | None


@dataclass(frozen=True, slots=True)
class Sent:
    """What a lease sent on one day (since 1970, UTC), and for whom."""

    lease_id: str
    day: int
    price_per_gib_nano: int
    tenant_id: str
    workload_id: str
    workload_name: str
    offer: str
    currency: str
    bytes_out: int


_KEEP = text(
    "INSERT INTO egress_counters (lease_id, unit, run, price_per_gib_nano, bytes_out) "
    "VALUES (:lease_id, :unit, :run, :price_per_gib_nano, :bytes_out) ON CONFLICT (lease_id) DO UPDATE SET "
    "unit = excluded.unit, run = excluded.run, price_per_gib_nano = excluded.price_per_gib_nano, "
    "bytes_out = excluded.bytes_out"
)
_ADD = text(
    f"INSERT INTO egress_days ({', '.join(Sent.__slots__)}) VALUES (:{', :'.join(Sent.__slots__)}) "  # noqa: S608
    "ON CONFLICT (lease_id, day, price_per_gib_nano) DO UPDATE SET "
    "bytes_out = egress_days.bytes_out + excluded.bytes_out"
)


def counters(c: Connection, lease_ids: Collection[str]) -> dict[str, Counter]:
    """Of these leases, by lease."""
    wanted, found = sorted(lease_ids), dict[str, Counter]()
    for start in range(0, len(wanted), PIECE):
        query = select(EGRESS_COUNTERS).where(EGRESS_COUNTERS.c.lease_id.in_(wanted[start : start + PIECE]))
        found.update({row.lease_id: Counter(*row) for row in c.execute(query)})
    return found


def keep(c: Connection, read: Sequence[Counter], sent: Sequence[Sent]) -> None:
    """Writes down how far counters have come and what was sent meanwhile: both, or in a transaction that fails
    neither."""
    if read:
        c.execute(_KEEP, [{name: getattr(each, name) for name in Counter.__slots__} for each in read])
    if sent:
        c.execute(_ADD, [{name: getattr(each, name) for name in Sent.__slots__} for each in sent])


def of_tenant(c: Connection, tenant_id: str | None, workload_id: str | None = None) -> list[Sent]:
    """Everything that a tenant, or all, sent; of one workload where it is given."""
    query = select(EGRESS_DAYS).order_by(EGRESS_DAYS.c.lease_id, EGRESS_DAYS.c.day)
    if tenant_id is not None:
        query = query.where(EGRESS_DAYS.c.tenant_id == tenant_id)
    if workload_id is not None:
        query = query.where(EGRESS_DAYS.c.workload_id == workload_id)
    return [Sent(*row) for row in c.execute(query)]


def by_workload(c: Connection, workload_ids: Sequence[str]) -> dict[str, int]:
    """What these workloads, of which there may be some hundred, sent and are charged for; those that sent nothing that
    was counted are not there."""
    query = select(EGRESS_DAYS.c.workload_id, func.sum(EGRESS_DAYS.c.bytes_out)).group_by(EGRESS_DAYS.c.workload_id)
    return {row[0]: int(row[1]) for row in c.execute(query.where(EGRESS_DAYS.c.workload_id.in_(workload_ids)))}


def of_leases(c: Connection, lease_ids: Collection[str]) -> list[Sent]:
    """Everything that these leases sent."""
    wanted, found = sorted(lease_ids), list[Sent]()
    for start in range(0, len(wanted), PIECE):
        query = select(EGRESS_DAYS).where(EGRESS_DAYS.c.lease_id.in_(wanted[start : start + PIECE]))
        found += [Sent(*row) for row in c.execute(query)]
    return found
