"""Meters, which count what goes on, and intervals, which say what was. Intervals are never changed or deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exc, func, or_, select, tuple_

from gpuyard.model.leases import Interval, Proof
from gpuyard.model.states import LeaseState
from gpuyard.store import charges
from gpuyard.store.tables import INTERVALS, METERS
from gpuyard.store.touched import EVERY, Kind, touch


@dataclass(frozen=True, slots=True)
class Meter:
    """An interval that has not ended: everything but its end, and the last moment that was proven."""

    lease_id: str
    tenant_id: str
    workload_id: str
    workload_name: str
    offer: str
    state: LeaseState
    run: int
    start_us: int
    node: str | None
    boot_id: str
    monotonic_start_ns: int
    proven_us: int
    proven_ns: int
    price_per_hour_nano: int
    currency: str
    minimum_us: int
    card_uuids: tuple[str, ...] = ()
    share_ppm: int | None = None  # of cards, all slices together


_ALL = select(*(METERS.c[field.name] for field in fields(Meter)))  # in the order in which Meter takes them


_AMONG = _ALL.where(METERS.c.lease_id.in_(bindparam("ids", expanding=True)))
_OPEN = METERS.insert()
_ONE = _ALL.where(METERS.c.lease_id == bindparam("id")).with_for_update()
_NEWEST = select(func.max(INTERVALS.c.sequence)).where(INTERVALS.c.lease_id == bindparam("id"))
_KEEP = INTERVALS.insert()
_CLOSE = METERS.delete().where(METERS.c.lease_id == bindparam("id"))


def open(c: Connection, meter: Meter) -> None:  # noqa: A001 - read as meters.open
    """Begins to count. Raises ValueError where the lease is being counted already."""
    touch(c, Kind.METER, meter.lease_id)
    try:
        c.execute(_OPEN, _values(meter))
    except exc.IntegrityError as error:
        raise ValueError(f"lease {meter.lease_id} has an open meter already") from error


def open_meters(c: Connection) -> dict[str, Meter]:
    """What is being counted, by lease."""
    return {row[0]: _meter(row) for row in c.execute(_ALL).all()}


def open_among(c: Connection, lease_ids: Sequence[str]) -> dict[str, Meter]:
    """What is being counted of these leases, of which there may be some hundred, by lease."""
    return {row[0]: _meter(row) for row in c.execute(_AMONG, {"ids": lease_ids}).all()}


_ADVANCE = (
    METERS.update()
    .where(METERS.c.lease_id == bindparam("lease"), METERS.c.proven_us < bindparam("us"))
    .values(proven_us=bindparam("us"), proven_ns=bindparam("ns"))
)


def advance(c: Connection, proofs: Sequence[tuple[str, int, int]]) -> None:
    """Moves the proven moments of (lease, µs, ns) forward; never back."""
    if proofs:
        touch(c, Kind.METER, EVERY)  # as good as all of them, and often
        c.execute(_ADVANCE, [{"lease": lease, "us": us, "ns": ns} for lease, us, ns in proofs])


def close(c: Connection, lease_id: str, end_us: int, end_ns: int, proof: Proof) -> Interval | None:
    """Turns the open meter into an interval; None where none is open, so that closing twice is looking once."""
    touch(c, Kind.METER, lease_id)
    row = c.execute(_ONE, {"id": lease_id}).first()
    if row is None:
        return None
    meter = _meter(row)
    interval = Interval(
        lease_id=lease_id,
        sequence=(c.execute(_NEWEST, {"id": lease_id}).scalar() or 0) + 1,
        tenant_id=meter.tenant_id,
        workload_id=meter.workload_id,
        workload_name=meter.workload_name,
        offer=meter.offer,
        state=meter.state,
        run=meter.run,
        start_us=meter.start_us,
        end_us=max(end_us, meter.start_us),
        node=meter.node,
        boot_id=meter.boot_id,
        monotonic_start_ns=meter.monotonic_start_ns,
        monotonic_end_ns=max(end_ns, meter.monotonic_start_ns),
        proof=proof,
        price_per_hour_nano=meter.price_per_hour_nano,
        currency=meter.currency,
        minimum_us=meter.minimum_us,
        card_uuids=meter.card_uuids,
        share_ppm=meter.share_ppm,
    )
    c.execute(_KEEP, _values(interval))
    if interval.price_per_hour_nano and interval.duration_us:
        charges.mark_due(c, lease_id)  # with the interval or not at all
    c.execute(_CLOSE, {"id": lease_id})
    return interval


def intervals(
    c: Connection,
    tenant_id: str | None = None,
    workload_id: str | None = None,
    from_us: int | None = None,
    until_us: int | None = None,
    after: tuple[str, int] | None = None,
    limit: int | None = None,
) -> list[Interval]:
    """Intervals by lease and sequence; those that touch [from, until) where these are given."""
    query = select(INTERVALS).order_by(INTERVALS.c.lease_id, INTERVALS.c.sequence)
    if tenant_id is not None:
        query = query.where(INTERVALS.c.tenant_id == tenant_id)
    if workload_id is not None:
        query = query.where(INTERVALS.c.workload_id == workload_id)
    if from_us is not None:
        # One that ended as it began, at the very start of the span, belongs to it and to no other.
        query = query.where(or_(INTERVALS.c.end_us > from_us, INTERVALS.c.start_us >= from_us))
    if until_us is not None:
        query = query.where(INTERVALS.c.start_us < until_us)
    if after is not None:
        query = query.where(tuple_(INTERVALS.c.lease_id, INTERVALS.c.sequence) > tuple_(*after))
    if limit is not None:
        query = query.limit(limit)
    return [_interval(row) for row in c.execute(query)]


def run_began(c: Connection, lease_id: str, run: int) -> int | None:
    """When a run was granted; None where it never was."""
    found = [
        c.execute(select(func.min(table.c.start_us)).where(table.c.lease_id == lease_id, table.c.run == run)).scalar()
        for table in (INTERVALS, METERS)
    ]
    return min((moment for moment in found if moment is not None), default=None)


def on_node(c: Connection, node: str, from_us: int, until_us: int | None) -> list[Interval]:
    """The closed intervals of a node that touch [from, until)."""
    query = select(INTERVALS).where(INTERVALS.c.node == node, INTERVALS.c.end_us > from_us)
    if until_us is not None:
        query = query.where(INTERVALS.c.start_us < until_us)
    return [_interval(row) for row in c.execute(query)]


def of_leases(c: Connection, lease_ids: Collection[str]) -> list[Interval]:
    """Every interval of these leases."""
    wanted = sorted(lease_ids)
    found: list[Interval] = []
    for start in range(0, len(wanted), charges.PIECE):
        query = select(INTERVALS).where(INTERVALS.c.lease_id.in_(wanted[start : start + charges.PIECE]))
        found += [_interval(row) for row in c.execute(query.order_by(INTERVALS.c.lease_id, INTERVALS.c.sequence))]
    return found


def _values(record: Meter | Interval) -> dict[str, object]:
    """A record as column values; its enumerations are text in the table."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
    return {**plain, "card_uuids": ",".join(record.card_uuids) or None}


_STATES = {state.value: state for state in LeaseState}


def _meter(row: Row[Any]) -> Meter:
    lease_id, tenant_id, workload_id, workload_name, offer, state, *rest, uuids, share_ppm = tuple(row)
    return Meter(
        lease_id,
        tenant_id,
        workload_id,
        workload_name,
        offer,
        _STATES[state],
        *rest,
        card_uuids=_uuids(uuids),
        share_ppm=share_ppm,
    )


def _interval(row: Row[Any]) -> Interval:
    read = {"state": LeaseState(row.state), "proof": Proof(row.proof), "card_uuids": _uuids(row.card_uuids)}
    return Interval(**{**row._mapping, **read})


def _uuids(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
