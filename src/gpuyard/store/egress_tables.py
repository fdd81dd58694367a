"""The tables of what left the yard. See `gpuyard.store.tables` for the units."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from gpuyard.store.tables import METADATA

# What the counter of each lease's newest unit said last. `bytes_out` absent: nothing yet, and what it says first was
# sent before anybody counted.
EGRESS_COUNTERS = Table(
    "egress_counters",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("unit", Text, nullable=False),
    Column("run", Integer, nullable=False),
    Column("price_per_gib_nano", BigInteger, nullable=False),
    Column("bytes_out", BigInteger),
)

# What leases sent, by the day (since 1970, UTC) on which it was counted. A row only grows.
EGRESS_DAYS = Table(
    "egress_days",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("price_per_gib_nano", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("workload_id", Text, nullable=False),
    Column("workload_name", Text, nullable=False),
    Column("offer", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
)
Index("egress_days_tenant", EGRESS_DAYS.c.tenant_id, EGRESS_DAYS.c.lease_id)
Index("egress_days_workload", EGRESS_DAYS.c.workload_id)
