"""The tables of users: people, who sign in, and service accounts, which hold tokens only."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from gpuyard.store.tables import METADATA

USERS = Table(
    "users",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("password", Text),  # argon2id, as it encodes itself
    Column("created_us", BigInteger, nullable=False),
    Column("disabled_us", BigInteger),
)
