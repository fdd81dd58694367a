"""Nonces of attestation, what verified evidence proves, and where data were first written."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "attestation_nonces",
        sa.Column("nonce", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workload_id", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.Text, nullable=False),
        sa.Column("issued_us", sa.BigInteger, nullable=False),
        sa.Column("used_us", sa.BigInteger),
    )
    op.create_index("attestation_nonces_by_age", "attestation_nonces", ["issued_us"])
    op.create_table(
        "attestations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("workload_id", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.Text, nullable=False),
        sa.Column("policy_sha256", sa.Text, nullable=False),
        sa.Column("evidence_sha256", sa.Text, nullable=False),
        sa.Column("processor", sa.Text, nullable=False),
        sa.Column("cards", sa.BigInteger, nullable=False),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("verified_us", sa.BigInteger, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("ended_because", sa.Text),
    )
    op.create_index("attestations_by_workload", "attestations", ["workload_id", "id"])
    op.execute("CREATE INDEX attestations_open ON attestations (workload_id) WHERE ended_us IS NULL")
    op.create_table(
        "data_homes",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("data", sa.Text, primary_key=True),
        sa.Column("residency_class", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("since_us", sa.BigInteger, nullable=False),
    )
