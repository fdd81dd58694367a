"""The table of where data were first written."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from gpuyard.store.tables import METADATA

DATA_HOMES = Table(
    "data_homes",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("data", Text, primary_key=True),  # volume/NAME or disk/NAME
    Column("residency_class", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
)
