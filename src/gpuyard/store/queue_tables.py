"""The tables of the queue: tenants' standing, why leases are where they are, notices, and demand by the hour."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from gpuyard.store.tables import METADATA

SHARES = Table(
    "shares",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("weight", Integer, nullable=False),
    Column("quota_compute_ppm", BigInteger),
    Column("quota_memory_bytes", BigInteger),
    Column("may_borrow", Boolean, nullable=False),
    Column("max_priority", Integer, nullable=False),
)

PLACEMENTS = Table(
    "placements",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("placed_us", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("checkpoint_us", BigInteger),
    Column("notice_us", BigInteger),
    Column("until_us", BigInteger),
    Column("notice_for", Text),
    Column("reclaimed_us", BigInteger),
    Column("reclaims", Integer, nullable=False),
    Index("placements_noticed", "notice_us"),
)

DEMAND = Table(
    "demand",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("compute_ppm", BigInteger, nullable=False),
)
