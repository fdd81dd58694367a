"""The tables of prices, commitments, invoices and the spot market. See `gpuyard.store.tables` for the units."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gpuyard.store.tables import METADATA

# Invoices and credit notes in the order of issue. `body` is the canonical JSON that `hash` is over.
DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("corrects", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("body", Text, nullable=False),
)
Index("documents_tenant", DOCUMENTS.c.tenant_id, DOCUMENTS.c.sequence)

COMMITMENTS = Table(
    "commitments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
Index("commitments_tenant", COMMITMENTS.c.tenant_id, COMMITMENTS.c.id)

# One row a round that changed something: the price holds until the next row. `body` is what anyone may recompute.
SPOT_ROUNDS = Table(
    "spot_rounds",
    METADATA,
    Column("offer", Text, primary_key=True),
    Column("at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("price_nano", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

IMMUTABLE = ("documents", "commitments", "spot_rounds")
