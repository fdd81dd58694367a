"""The tables of attestation: nonces, and what verified evidence proves of which start of an instance."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gpuyard.store.tables import METADATA

NONCES = Table(
    "attestation_nonces",
    METADATA,
    Column("nonce", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("workload_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("key_sha256", Text, nullable=False),
    Column("issued_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
    Index("attestation_nonces_by_age", "issued_us"),
)

ATTESTATIONS = Table(
    "attestations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("workload_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("key_sha256", Text, nullable=False),
    Column("policy_sha256", Text, nullable=False),
    Column("evidence_sha256", Text, nullable=False),
    Column("processor", Text, nullable=False),
    Column("cards", BigInteger, nullable=False),
    Column("claims", Text, nullable=False),
    Column("verified_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("ended_because", Text),
    Index("attestations_by_workload", "workload_id", "id"),
)
