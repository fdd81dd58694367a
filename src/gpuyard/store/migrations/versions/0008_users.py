"""Users with passwords, service accounts, and tokens and access keys that end by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("password", sa.Text),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("disabled_us", sa.BigInteger),
    )
    op.add_column("tokens", sa.Column("expires_us", sa.BigInteger))
    op.add_column("tokens", sa.Column("last_used_us", sa.BigInteger))
    op.add_column("access_keys", sa.Column("expires_us", sa.BigInteger))
