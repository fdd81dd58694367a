"""The classes of regions, and the class that each volume and disk belongs to since it was first written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from gpuyard.store import meta
from gpuyard.store.residency_tables import DATA_HOMES

_CLASSES = "residency_classes"


def classes(c: Connection) -> dict[str, list[str]]:
    """Regions by class."""
    return json.loads(meta.get(c, _CLASSES) or "{}")


def put_class(c: Connection, name: str, regions: Sequence[str]) -> None:
    """Sets a class; one without regions is taken away."""
    found = classes(c) | {name: sorted(regions)}
    meta.put(c, _CLASSES, json.dumps({one: where for one, where in found.items() if where}))


def homes(c: Connection, tenant_id: str, data: Sequence[str]) -> dict[str, str]:
    """The class of what has one."""
    query = select(DATA_HOMES).where(DATA_HOMES.c.tenant_id == tenant_id, DATA_HOMES.c.data.in_(list(data)))
    return {row.data: row.residency_class for row in c.execute(query)}


def settle(c: Connection, tenant_id: str, data: Sequence[str], residency_class: str, region: str, now_us: int) -> None:
    """Writes down where these begin."""
    common: Mapping[str, object] = {
        "tenant_id": tenant_id, "residency_class": residency_class, "region": region, "since_us": now_us,
    }  # fmt: skip
    if data:
        c.execute(DATA_HOMES.insert(), [{**common, "data": one} for one in data])


def forget(c: Connection, tenant_id: str, data: Sequence[str]) -> None:
    """They are no more."""
    c.execute(DATA_HOMES.delete().where(DATA_HOMES.c.tenant_id == tenant_id, DATA_HOMES.c.data.in_(list(data))))


def listing(c: Connection, tenant_id: str | None = None) -> list[dict[str, object]]:
    """Everything that has a class."""
    query = select(DATA_HOMES).order_by(DATA_HOMES.c.tenant_id, DATA_HOMES.c.data)
    if tenant_id is not None:
        query = query.where(DATA_HOMES.c.tenant_id == tenant_id)
    return [dict(row) for row in c.execute(query).mappings()]
