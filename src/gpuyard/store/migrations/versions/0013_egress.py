"""Starts without cards, shares of cards beside their time, and what leaves the yard."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def _text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def upgrade() -> None:
    op.add_column("workloads", sa.Column("cpu_only", sa.Boolean(), nullable=True))
    added = {
        "meters": ["share_ppm"],
        "intervals": ["share_ppm"],
        "unit_times": ["share_ppm"],
        "holdings": ["share_ppm", "card_us"],
        "discrepancies": ["scheduler_card_us", "node_card_us", "billed_card_us"],
    }
    for table, columns in added.items():
        for column in columns:
            op.add_column(table, _number(column, nullable=True))
    op.create_table(
        "egress_counters",
        _text("lease_id"),
        _text("unit"),
        sa.Column("run", sa.Integer(), nullable=False),
        _number("price_per_gib_nano"),
        _number("bytes_out", nullable=True),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    op.create_table(
        "egress_days",
        _text("lease_id"),
        _number("day"),
        _number("price_per_gib_nano"),
        _text("tenant_id"),
        _text("workload_id"),
        _text("workload_name"),
        _text("offer"),
        _text("currency"),
        _number("bytes_out"),
        sa.PrimaryKeyConstraint("lease_id", "day", "price_per_gib_nano"),
    )
    op.create_index("egress_days_tenant", "egress_days", ["tenant_id", "lease_id"])
    op.create_index("egress_days_workload", "egress_days", ["workload_id"])
    # What runs now was granted by a yard that counted nothing, and is not charged for it: neither for what it sent nor
    # for what it sends until it is started anew.
    op.execute(
        "INSERT INTO egress_counters (lease_id, unit, run, price_per_gib_nano, bytes_out) "
        "SELECT leases.id, '', leases.run, 0, NULL FROM leases WHERE leases.state IN ('granted', 'active')"
    )
