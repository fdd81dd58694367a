"""The tables of the cloud dialects: access keys, whose secrets lie sealed, and tenants' public keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from gpuyard.store.tables import METADATA

ACCESS_KEYS = Table(
    "access_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("user", Text, nullable=False, quote=True),
    Column("role", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("last_used_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("expires_us", BigInteger),  # none: until it is revoked
    Index("access_keys_tenant", "tenant_id"),
)

KEY_PAIRS = Table(
    "key_pairs",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
