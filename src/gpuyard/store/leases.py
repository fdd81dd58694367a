"""Leases and the slices that they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, literal_column, select

from gpuyard.model.leases import Lease, PurchaseOption, Terms
from gpuyard.model.mig import MigCut
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.model.states import LeaseState
from gpuyard.store.tables import LEASES, SLICES
from gpuyard.store.touched import Kind, touch
from gpuyard.store.unchanged import Unchanged

_ALL = select(LEASES)
_LIVE = LEASES.c.state != literal_column("'ended'")  # spelled out, for the index that holds only these
_IN_CHUNKS_OF = 500  # below every database's limit of parameters


_INSERT = LEASES.insert()


def insert(c: Connection, lease: Lease) -> None:
    """A new lease. A second live one for the same replica breaks a rule of the schema (IntegrityError)."""
    touch(c, Kind.LEASE, lease.id)
    c.execute(
        _INSERT,
        {
            "id": lease.id,
            "workload_id": lease.workload_id,
            "tenant_id": lease.tenant_id,
            "replica": lease.replica,
            "option": lease.option.value,
            "created_us": lease.created_us,
            **_mutable(lease),
        },
    )


def get(c: Connection, lease_id: str) -> Lease | None:
    """One lease with its slices."""
    found = _with_slices(c, c.execute(_ALL.where(LEASES.c.id == lease_id)).all())
    return found[0] if found else None


_OPEN = _ALL.where(_LIVE).order_by(LEASES.c.id)
_OPEN_AMONG = _OPEN.where(LEASES.c.id.in_(bindparam("ids", expanding=True)))


def open_leases(c: Connection) -> list[Lease]:
    """Every lease that has not ended, oldest first."""
    held = _slices(c, select(SLICES))
    return [_lease(tuple(row), tuple(held[row.id])) for row in c.execute(_OPEN)]


def open_among(c: Connection, lease_ids: Sequence[str]) -> list[Lease]:
    """Those of these leases, of which there may be some hundred, that have not ended."""
    return _with_slices(c, c.execute(_OPEN_AMONG, {"ids": lease_ids}).all())


def of_workload(c: Connection, workload_id: str, include_ended: bool = False) -> list[Lease]:
    """The leases of a workload, oldest first."""
    query = _ALL.where(LEASES.c.workload_id == workload_id).order_by(LEASES.c.id)
    return _with_slices(c, c.execute(query if include_ended else query.where(_LIVE)).all())


def of_workloads(c: Connection, workload_ids: Sequence[str]) -> list[Lease]:
    """The leases of these workloads, ended ones too, oldest first."""
    found: list[Lease] = []
    for start in range(0, len(workload_ids), _IN_CHUNKS_OF):
        some = workload_ids[start : start + _IN_CHUNKS_OF]
        found += _with_slices(c, c.execute(_ALL.where(LEASES.c.workload_id.in_(some)).order_by(LEASES.c.id)).all())
    return found


def page(
    c: Connection, tenant_id: str | None, states: Collection[LeaseState] | None, limit: int, before_id: str | None
) -> list[Lease]:
    """Leases, newest first."""
    query = _ALL.order_by(LEASES.c.id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(LEASES.c.tenant_id == tenant_id)
    if states:
        query = query.where(LEASES.c.state.in_([state.value for state in states]))
    if before_id is not None:
        query = query.where(LEASES.c.id < before_id)
    return _with_slices(c, c.execute(query).all())


_UPDATE = LEASES.update().where(LEASES.c.id == bindparam("b_id"), LEASES.c.state == bindparam("b_state"))


def update(c: Connection, lease: Lease, expected: LeaseState) -> bool:
    """Writes the lease if it is still in the state that was seen; otherwise nothing, and False."""
    touch(c, Kind.LEASE, lease.id)
    return c.execute(_UPDATE, {"b_id": lease.id, "b_state": expected.value, **_mutable(lease)}).rowcount == 1


_MARK = LEASES.update().where(
    LEASES.c.id == bindparam("b_id"), LEASES.c.state == LeaseState.ACTIVE.value, LEASES.c.reason.is_(None)
)


def mark(c: Connection, lease_id: str, reason: str, now_us: int) -> bool:
    """Writes down why an active lease's unit is to end, unless that is to be for another reason already."""
    touch(c, Kind.LEASE, lease_id)
    return c.execute(_MARK, {"b_id": lease_id, "reason": reason, "updated_us": now_us}).rowcount == 1


def hold(c: Connection, lease_id: str, slices: Sequence[Slice]) -> None:
    """Cuts slices for a lease, if it is to have any. Holding the same card twice breaks a rule of the schema."""
    touch(c, Kind.LEASE, lease_id)
    if not slices:
        return
    c.execute(
        SLICES.insert(),
        [
            {
                "lease_id": lease_id,
                "card_uuid": cut.card_uuid,
                "memory_bytes": cut.shape.memory_bytes,
                "compute_ppm": cut.shape.compute_ppm,
                "guarantee": cut.guarantee.value,
                "mig": None if cut.mig is None else cut.mig.to_json(),
            }
            for cut in slices
        ],
    )


def release(c: Connection, lease_id: str) -> int:
    """Gives all slices of a lease back; how many there were."""
    touch(c, Kind.LEASE, lease_id)
    return c.execute(SLICES.delete().where(SLICES.c.lease_id == lease_id)).rowcount


_USAGE = select(SLICES.c.card_uuid, func.sum(SLICES.c.memory_bytes), func.sum(SLICES.c.compute_ppm)).group_by(
    SLICES.c.card_uuid
)


def usage(c: Connection) -> dict[str, tuple[int, int]]:
    """What is held of each card: bytes of memory and parts per million of compute."""
    return {uuid: (int(memory), int(compute)) for uuid, memory, compute in c.execute(_USAGE)}


_INSTANCES = select(SLICES.c.card_uuid, SLICES.c.mig).where(SLICES.c.mig.is_not(None))


def instances(c: Connection) -> dict[str, tuple[MigCut, ...]]:
    """The MIG instances that back slices, by their card."""
    found: dict[str, list[MigCut]] = defaultdict(list)
    for uuid, text in c.execute(_INSTANCES):
        found[uuid].append(MigCut.from_json(text))
    return {uuid: tuple(cuts) for uuid, cuts in found.items()}


def _with_slices(c: Connection, rows: Sequence[Row[Any]]) -> list[Lease]:
    ids = [row.id for row in rows if row.state in ("granted", "active")]
    held: dict[str, list[Slice]] = defaultdict(list)
    for start in range(0, len(ids), _IN_CHUNKS_OF):
        held.update(_slices(c, select(SLICES).where(SLICES.c.lease_id.in_(ids[start : start + _IN_CHUNKS_OF]))))
    return [_lease(tuple(row), tuple(held[row.id])) for row in rows]


def _slices(c: Connection, query: Select[Any]) -> dict[str, list[Slice]]:
    held: dict[str, list[Slice]] = defaultdict(list)
    for row in c.execute(query).all():
        held[row[0]].append(_slice(*row))
    return held


@lru_cache(maxsize=2048)
def _slice(
    lease_id: str, card_uuid: str, memory_bytes: int, compute_ppm: int, guarantee: str, mig: str | None
) -> Slice:
    instance = None if mig is None else MigCut.from_json(mig)
    return Slice(lease_id, card_uuid, SliceShape(memory_bytes, compute_ppm), Guarantee(guarantee), instance)


def _mutable(lease: Lease) -> dict[str, object]:
    terms = lease.terms
    return {
        "state": lease.state.value,
        "run": lease.run,
        "attempt": lease.attempt,
        "restarts": lease.restarts,
        "node": lease.node,
        "terms_currency": terms.currency if terms else None,
        "terms_active_nano": terms.active_per_hour_nano if terms else None,
        "terms_stopped_nano": terms.stopped_per_hour_nano if terms else None,
        "terms_minimum_us": terms.minimum_us if terms else None,
        "reason": lease.reason,
        "exit_code": lease.exit_code,
        "not_before_us": lease.not_before_us,
        "run_started_us": lease.run_started_us,
        "updated_us": lease.updated_us,
        "detail": lease.detail,
    }


def _made(row: tuple[Any, ...], slices: tuple[Slice, ...]) -> Lease:
    values = dict(zip(LEASES.c.keys(), row, strict=True))
    currency = values.pop("terms_currency")
    active, stopped = values.pop("terms_active_nano"), values.pop("terms_stopped_nano")
    minimum = values.pop("terms_minimum_us")
    values["terms"] = None if currency is None else Terms(currency, active, stopped, minimum)
    values["state"] = LeaseState(values["state"])
    values["option"] = PurchaseOption(values["option"])
    return Lease(**values, slices=tuple(sorted(slices, key=lambda cut: cut.card_uuid)))


_lease = Unchanged(_made)


def bought_otherwise(c: Connection, tenant_id: str | None) -> dict[str, PurchaseOption]:
    """The leases that are not on demand, by how they were bought; of one tenant or of all."""
    query = select(LEASES.c.id, LEASES.c.option).where(LEASES.c.option != PurchaseOption.ON_DEMAND.value)
    if tenant_id is not None:
        query = query.where(LEASES.c.tenant_id == tenant_id)
    return {row.id: PurchaseOption(row.option) for row in c.execute(query)}
