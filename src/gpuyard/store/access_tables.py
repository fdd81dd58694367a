"""The tables of access: organisations, policies, quotas, geography, and the audit log.

`audit` and `audit_checkpoints` can be added to and never changed: triggers refuse it. What of an entry is personal lies
sealed in it, under a key in `audit_subjects`, where alone it can be deleted.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, Table, Text

from gpuyard.store.tables import METADATA

AUDIT = Table(
    "audit",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("tenant_id", Text),
    Column("leaf", Text, nullable=False),
    Index("audit_by_time", "at_us"),
)

AUDIT_CHECKPOINTS = Table(
    "audit_checkpoints",
    METADATA,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("frontier", Text, nullable=False),
    Column("note", Text, nullable=False),
)

AUDIT_SUBJECTS = Table(
    "audit_subjects",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text),
    Column("key", LargeBinary),
    Column("shredded_us", BigInteger),
    Index("audit_subjects_by_name", "tenant_id", "name", unique=True),
)

ORGANISATIONS = Table(
    "organisations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
)

PROJECTS = Table(
    "projects",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("organisation_id", Text, nullable=False),
)

POLICIES = Table(
    "policies",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)

ATTACHMENTS = Table(
    "policy_attachments",
    METADATA,
    Column("policy", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("fence", Boolean, nullable=False),
)

QUOTAS = Table(
    "quotas",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("soft", BigInteger),
    Column("hard", BigInteger),
)

COUNTRIES = Table(
    "tenant_countries",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("country", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("evidence_sha256", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

EXPORT_CLASSES = Table(
    "export_classes",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("card_models", Text, nullable=False),
    Column("countries", Text, nullable=False),
)

# What each workload counts for in quotas, and whose it is: written with the launch.
CLAIMS = Table(
    "workload_claims",
    METADATA,
    Column("workload_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("card_share_ppm", BigInteger, nullable=False),
    Column("card_memory_bytes", BigInteger, nullable=False),
    Column("storage_bytes", BigInteger, nullable=False),
    Column("spend_per_hour_nano", BigInteger, nullable=False),
    Index("workload_claims_by_tenant", "tenant_id"),
)

NETWORKS = Table(
    "networks",
    METADATA,
    Column("cidr", Text, primary_key=True),
    Column("country", Text),  # none: a trusted proxy
)

IMMUTABLE = ("audit", "audit_checkpoints")
