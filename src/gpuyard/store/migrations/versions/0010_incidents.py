"""Incidents of the hardware, which cards an interval was on, and the energy that cards took."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def _text(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    op.add_column("meters", _text("card_uuids", nullable=True))
    op.add_column("intervals", _text("card_uuids", nullable=True))
    _note_cards()
    op.create_index("intervals_node", "intervals", ["node", "end_us"])
    op.create_table(
        "incidents",
        _text("id"),
        _text("cause"),
        _text("node", nullable=True),
        _text("card_uuid", nullable=True),
        _text("lease_id", nullable=True),
        _text("what"),
        _number("opened_us"),
        _text("opened_by"),
        _number("last_good_us", nullable=True),
        _number("closed_us", nullable=True),
        _text("closed_by", nullable=True),
        _text("outcome", nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("incidents_opened", "incidents", ["opened_us"])
    op.execute(
        "CREATE UNIQUE INDEX incidents_open ON incidents "
        "(cause, coalesce(node, ''), coalesce(card_uuid, ''), coalesce(lease_id, '')) WHERE closed_us IS NULL"
    )
    op.create_table(
        "energy_counters",
        _text("card_uuid"),
        _number("read_us"),
        _number("millijoules"),
        sa.PrimaryKeyConstraint("card_uuid"),
    )
    op.create_table(
        "energy_hours",
        _text("card_uuid"),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        _number("millijoules"),
        _number("covered_us"),
        sa.PrimaryKeyConstraint("card_uuid", "hour"),
    )


def _note_cards() -> None:
    """What runs now is on the cards that it holds; of what has ended nobody knows."""
    bind = op.get_bind()
    held: dict[str, list[str]] = {}
    for lease, card in bind.execute(sa.text("SELECT lease_id, card_uuid FROM slices ORDER BY lease_id, card_uuid")):
        held.setdefault(lease, []).append(card)
    for lease, cards in held.items():
        update = sa.text("UPDATE meters SET card_uuids = :cards WHERE lease_id = :lease")
        bind.execute(update, {"cards": ",".join(cards), "lease": lease})
