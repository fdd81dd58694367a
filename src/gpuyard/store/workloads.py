"""Workloads and their sealed secrets."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exc, literal_column, select, text

from gpuyard.model.errors import YardError
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Desired, Workload, WorkloadKind
from gpuyard.store import specs
from gpuyard.store.tables import SECRETS, WORKLOADS
from gpuyard.store.touched import Kind, touch
from gpuyard.store.unchanged import Unchanged

_ALL = select(WORKLOADS)
_LIVE = WORKLOADS.c.state != literal_column("'removed'")  # spelled out, for the index that holds only these


# Made once: making a statement takes longer than running it.
_INSERT = WORKLOADS.insert()
_TAKEN = select(WORKLOADS.c.id).where(
    WORKLOADS.c.tenant_id == bindparam("tenant"), WORKLOADS.c.name == bindparam("name"), _LIVE
)


def insert(c: Connection, workload: Workload, sealed: Mapping[str, bytes]) -> None:
    """Raises YardError `name_taken` where the tenant has a workload of that name that is not removed."""
    touch(c, Kind.WORKLOAD, workload.id)
    if c.execute(_TAKEN, {"tenant": workload.tenant_id, "name": workload.name}).first() is not None:
        raise YardError("name_taken", name=workload.name)
    try:
        c.execute(
            _INSERT,
            {
                "id": workload.id,
                "tenant_id": workload.tenant_id,
                "name": workload.name,
                "kind": workload.spec.kind.value,
                "spec": specs.to_json(workload.spec),
                "desired": workload.desired.value,
                "state": workload.state.value,
                "reason": workload.reason,
                "reason_params": _dump(workload.reason_params),
                "runtime": workload.runtime,
                "exit_code": workload.exit_code,
                "created_us": workload.created_us,
                "updated_us": workload.updated_us,
                "cpu_only": workload.cpu_only,
            },
        )
    except exc.IntegrityError:
        raise YardError("name_taken", name=workload.name) from None
    if sealed:
        rows = [{"workload_id": workload.id, "name": name, "sealed": value} for name, value in sealed.items()]
        c.execute(SECRETS.insert(), rows)


_GET = _ALL.where(WORKLOADS.c.id == bindparam("id"))


def get(c: Connection, workload_id: str) -> Workload | None:
    """A workload by id, removed or not."""
    row = c.execute(_GET, {"id": workload_id}).first()
    return None if row is None else _workload(tuple(row))


def find(c: Connection, tenant_id: str | None, id_or_name: str) -> Workload | None:
    """A workload by id (removed ones too) or by name (those that are not removed), of one tenant or of any.

    Raises YardError `invalid_request` where several tenants use the name and none was given.
    """
    mine = _ALL if tenant_id is None else _ALL.where(WORKLOADS.c.tenant_id == tenant_id)
    row = c.execute(mine.where(WORKLOADS.c.id == id_or_name)).first()
    if row is not None:
        return _workload(tuple(row))
    named = c.execute(mine.where(WORKLOADS.c.name == id_or_name, _LIVE).limit(2)).all()
    if len(named) > 1:
        raise YardError("invalid_request", reason="name_of_several", workload=id_or_name)
    return _workload(tuple(named[0])) if named else None


def page(
    c: Connection,
    tenant_id: str | None,
    kind: WorkloadKind | None,
    states: Collection[WorkloadState] | None,
    limit: int,
    before_id: str | None,
) -> list[Workload]:
    """Workloads, newest first; removed ones only where their state is asked for."""
    query = _page_query(tenant_id is not None, kind is not None, bool(states), before_id is not None)
    asked: dict[str, object] = {"most": limit, "tenant": tenant_id, "kind": kind, "before": before_id}
    asked["states"] = [state.value for state in states or ()]
    return [_workload(tuple(row)) for row in c.execute(query, asked).all()]


@lru_cache
def _page_query(of_tenant: bool, of_kind: bool, in_states: bool, before: bool) -> Select[Any]:
    """Made once of each sort: making it takes longer than running it."""
    query = _ALL.order_by(WORKLOADS.c.id.desc()).limit(bindparam("most"))
    query = query.where(WORKLOADS.c.state.in_(bindparam("states", expanding=True)) if in_states else _LIVE)
    if of_tenant:
        query = query.where(WORKLOADS.c.tenant_id == bindparam("tenant"))
    if of_kind:
        query = query.where(WORKLOADS.c.kind == bindparam("kind"))
    return query.where(WORKLOADS.c.id < bindparam("before")) if before else query


_UNSETTLED = _ALL.where(_LIVE).order_by(WORKLOADS.c.id)


def unsettled(c: Connection) -> list[Workload]:
    """Every workload that is not removed, oldest first."""
    return [_workload(tuple(row)) for row in c.execute(_UNSETTLED)]


_UNSETTLED_AMONG = _UNSETTLED.where(WORKLOADS.c.id.in_(bindparam("ids", expanding=True)))


def unsettled_among(c: Connection, workload_ids: Sequence[str]) -> list[Workload]:
    """Those of these, of which there may be some hundred, that are not removed."""
    return [_workload(tuple(row)) for row in c.execute(_UNSETTLED_AMONG, {"ids": workload_ids})]


_DESIRED = select(WORKLOADS.c.desired).where(WORKLOADS.c.id == bindparam("id"))


def of_tenant(c: Connection, tenant_id: str) -> list[Workload]:
    """What a tenant has and was not removed."""
    query = _ALL.where(WORKLOADS.c.tenant_id == tenant_id, text("state <> 'removed'"))
    return [_workload(tuple(row)) for row in c.execute(query).all()]


def desired_of(c: Connection, workload_id: str) -> Desired | None:
    """What is wanted of it now; None where there is no such workload."""
    found = c.execute(_DESIRED, {"id": workload_id}).scalar()
    return None if found is None else Desired(found)


def set_desired(c: Connection, workload_id: str, desired: Desired, now_us: int) -> None:
    """What is wanted of it from now on."""
    touch(c, Kind.WORKLOAD, workload_id)
    c.execute(WORKLOADS.update().where(WORKLOADS.c.id == workload_id).values(desired=desired.value, updated_us=now_us))


def set_cpu_only(c: Connection, workload_id: str, cpu_only: bool) -> None:
    """Whether its next start is without its cards."""
    touch(c, Kind.WORKLOAD, workload_id)
    c.execute(WORKLOADS.update().where(WORKLOADS.c.id == workload_id).values(cpu_only=cpu_only))


_SET_STATE = WORKLOADS.update().where(WORKLOADS.c.id == bindparam("b_id"))


def set_state(
    c: Connection,
    workload_id: str,
    state: WorkloadState,
    reason: str | None,
    reason_params: Mapping[str, object],
    exit_code: int | None,
    now_us: int,
) -> None:
    """How it is, and why. The secrets of a removed one go."""
    touch(c, Kind.WORKLOAD, workload_id)
    c.execute(
        _SET_STATE,
        {
            "b_id": workload_id,
            "state": state.value,
            "reason": reason,
            "reason_params": _dump(reason_params),
            "exit_code": exit_code,
            "updated_us": now_us,
        },
    )
    if state is WorkloadState.REMOVED:
        c.execute(SECRETS.delete().where(SECRETS.c.workload_id == workload_id))


def set_labels(c: Connection, workload: Workload, labels: Mapping[str, str], now_us: int) -> None:
    """Its labels from now on; the rest of what it was asked to be never changes."""
    touch(c, Kind.WORKLOAD, workload.id)
    spec = specs.to_json(replace(workload.spec, labels=dict(labels)))
    c.execute(WORKLOADS.update().where(WORKLOADS.c.id == workload.id).values(spec=spec, updated_us=now_us))


def sealed(c: Connection, workload_id: str) -> dict[str, bytes]:
    """Its secrets, sealed."""
    query = select(SECRETS.c.name, SECRETS.c.sealed).where(SECRETS.c.workload_id == workload_id)
    return {row.name: bytes(row.sealed) for row in c.execute(query)}


def _dump(values: Mapping[str, object]) -> str:
    return json.dumps(dict(values)) if values else "{}"


def _made(row: tuple[Any, ...]) -> Workload:
    workload_id, tenant_id, name, _, spec, desired, state, reason, params, runtime, exit_code, *rest = row
    created, updated, cpu_only = rest
    return Workload(
        id=workload_id,
        tenant_id=tenant_id,
        name=name,
        spec=specs.from_json(spec),
        desired=Desired(desired),
        state=WorkloadState(state),
        reason=reason,
        reason_params=json.loads(params) if params != "{}" else {},
        runtime=runtime,
        exit_code=exit_code,
        created_us=created,
        updated_us=updated,
        cpu_only=bool(cpu_only),
    )


_workload = Unchanged(_made)
