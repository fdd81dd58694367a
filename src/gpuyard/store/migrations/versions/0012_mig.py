"""How cards in MIG mode can be cut, and the MIG instances that back slices."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("cards", sa.Column("mig", sa.Text(), nullable=True))
    op.add_column("slices", sa.Column("mig", sa.Text(), nullable=True))
