"""Tenants' standing in the queue. A tenant without a row has the default one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, text

from gpuyard.model.tenants import Share
from gpuyard.store.queue_tables import SHARES

_PUT = text(
    "INSERT INTO shares (tenant_id, weight, quota_compute_ppm, quota_memory_bytes, may_borrow, max_priority) "
    "VALUES (:tenant_id, :weight, :quota_compute_ppm, :quota_memory_bytes, :may_borrow, :max_priority) "
    "ON CONFLICT (tenant_id) DO UPDATE SET weight = excluded.weight, quota_compute_ppm = excluded.quota_compute_ppm, "
    "quota_memory_bytes = excluded.quota_memory_bytes, may_borrow = excluded.may_borrow, "
    "max_priority = excluded.max_priority"
)


def put(c: Connection, tenant_id: str, share: Share) -> None:
    """Sets a tenant's share."""
    c.execute(
        _PUT,
        {
            "tenant_id": tenant_id,
            "weight": share.weight,
            "quota_compute_ppm": share.quota_compute_ppm,
            "quota_memory_bytes": share.quota_memory_bytes,
            "may_borrow": share.may_borrow,
            "max_priority": share.max_priority,
        },
    )


def of(c: Connection, tenant_id: str) -> Share:
    """A tenant's share."""
    row = c.execute(select(SHARES).where(SHARES.c.tenant_id == tenant_id)).first()
    return Share() if row is None else _share(row)


def every(c: Connection) -> dict[str, Share]:
    """The standing of each tenant that has one of its own."""
    return {row.tenant_id: _share(row) for row in c.execute(select(SHARES))}


def _share(row: Row[Any]) -> Share:
    return Share(row.weight, row.quota_compute_ppm, row.quota_memory_bytes, bool(row.may_borrow), row.max_priority)
