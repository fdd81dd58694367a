"""Machines that join: invitations, machines and their certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "machine_invitations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("used_us", sa.BigInteger),
        sa.Column("key_sha256", sa.Text),
        sa.Column("machine_id", sa.Text),
        sa.Column("withdrawn_us", sa.BigInteger),
    )
    op.create_table(
        "machines",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("joined_us", sa.BigInteger, nullable=False),
        sa.Column("joined_by", sa.Text, nullable=False),
        sa.Column("revoked_us", sa.BigInteger),
        sa.Column("heartbeat_us", sa.BigInteger),
        sa.Column("clock_ahead_us", sa.BigInteger),
        sa.Column("version", sa.Text),
        sa.Column("inventory", sa.Text),
        sa.Column("inventory_us", sa.BigInteger),
        sa.Column("late_since_us", sa.BigInteger),
    )
    op.create_table(
        "machine_certificates",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("machine_id", sa.Text, nullable=False),
        sa.Column("invitation_id", sa.Text),
        sa.Column("key_sha256", sa.Text, nullable=False),
        sa.Column("issued_us", sa.BigInteger, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("used_us", sa.BigInteger),
        sa.Column("superseded_us", sa.BigInteger),
        sa.Column("revoked_us", sa.BigInteger),
    )
    op.create_index("machine_certificates_by_machine", "machine_certificates", ["machine_id"])
