"""The table of moves: running leases on their way from one place to another."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from gpuyard.store.tables import METADATA

MOVES = Table(
    "moves",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("lease_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("wanted_for", Text),
    Column("state", Text, nullable=False),
    Column("from_node", Text, nullable=False),
    Column("from_cards", Text, nullable=False),
    Column("to_node", Text, nullable=False),
    Column("to_cards", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("compute_ppm", Integer, nullable=False),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("node_memory_bytes", BigInteger, nullable=False),
    Column("begun_us", BigInteger, nullable=False),
    Column("switched_us", BigInteger),
    Column("ended_us", BigInteger),
    Index("moves_begun", "begun_us"),
)
