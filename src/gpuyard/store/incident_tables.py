"""The tables of incidents and of the energy that cards took."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gpuyard.store.tables import METADATA

INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("node", Text),
    Column("card_uuid", Text),
    Column("lease_id", Text),
    Column("what", Text, nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("last_good_us", BigInteger),
    Column("closed_us", BigInteger),
    Column("closed_by", Text),
    Column("outcome", Text),
    Index("incidents_opened", "opened_us"),
)

# What a card's own counter said last; a counter that has gone back began anew.
ENERGY_COUNTERS = Table(
    "energy_counters",
    METADATA,
    Column("card_uuid", Text, primary_key=True),
    Column("read_us", BigInteger, nullable=False),
    Column("millijoules", BigInteger, nullable=False),
)

# Hours are counted from 1970. `covered_us`: of how much of the hour this is the energy.
ENERGY_HOURS = Table(
    "energy_hours",
    METADATA,
    Column("card_uuid", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("millijoules", BigInteger, nullable=False),
    Column("covered_us", BigInteger, nullable=False),
)
