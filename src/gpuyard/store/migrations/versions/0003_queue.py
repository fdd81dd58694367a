"""The queue: tenants' standing, placements with notices, demand by the hour, and the topology of nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("topology", sa.Text(), nullable=True))
    op.create_table(
        "shares",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("quota_compute_ppm", sa.BigInteger(), nullable=True),
        sa.Column("quota_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("may_borrow", sa.Boolean(), nullable=False),
        sa.Column("max_priority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    op.create_table(
        "placements",
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("placed_us", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("checkpoint_us", sa.BigInteger(), nullable=True),
        sa.Column("notice_us", sa.BigInteger(), nullable=True),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        sa.Column("notice_for", sa.Text(), nullable=True),
        sa.Column("reclaimed_us", sa.BigInteger(), nullable=True),
        sa.Column("reclaims", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    op.create_index("placements_noticed", "placements", ["notice_us"])
    op.create_table(
        "demand",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("compute_ppm", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "hour"),
    )
