"""The ledger, and what stands on it. Credit moves out of the tenants' table into opening transfers.

What was used before is posted by the first pass of the loops: every lease with intervals is marked due.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_RANGE = "BETWEEN -9000000000000000000 AND 9000000000000000000"


def _text(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    _ledger()
    _wallets()
    _idle()
    _reconciliation()
    _make_immutable("transfers")
    _move_credit()


def _ledger() -> None:
    op.create_table(
        "accounts",
        _text("id"),
        _number("balance_nano"),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint(f"balance_nano {_RANGE}", name="accounts_range"),
    )
    op.create_table(
        "transfers",
        _text("id"),
        _number("sequence"),
        _number("at_us"),
        _text("kind"),
        _text("debit"),
        _text("credit"),
        _number("amount_nano"),
        _text("currency"),
        _text("tenant_id"),
        _text("subject"),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("amount_nano BETWEEN 1 AND 9000000000000000000", name="transfers_amount"),
        sa.CheckConstraint("debit <> credit", name="transfers_accounts"),
    )
    op.create_index("transfers_tenant", "transfers", ["tenant_id", "sequence"], unique=False)
    op.create_table(
        "charges",
        _text("subject"),
        _text("tenant_id"),
        _text("offer"),
        _text("currency"),
        _number("revenue_nano"),
        _number("credited_nano"),
        _number("held_nano"),
        _number("postings"),
        _number("settled_us"),
        sa.PrimaryKeyConstraint("subject"),
        sa.CheckConstraint("held_nano >= 0", name="charges_held"),
    )
    held = sa.text("held_nano > 0")
    op.create_index("charges_tenant", "charges", ["tenant_id", "subject"], unique=False)
    op.create_index("charges_held", "charges", ["subject"], sqlite_where=held, postgresql_where=held)
    op.create_table("charges_due", _text("lease_id"), sa.PrimaryKeyConstraint("lease_id"))


def _wallets() -> None:
    op.create_table(
        "wallets",
        _text("tenant_id"),
        sa.Column("prepaid", sa.Boolean(), nullable=False),
        sa.Column("runway_told", sa.Integer(), nullable=False),
        _number("exhausted_us", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    op.create_table(
        "budgets",
        _text("tenant_id"),
        _text("period"),
        _text("action"),
        _number("amount_nano"),
        _text("fired_for", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "period", "action"),
        sa.CheckConstraint("amount_nano > 0", name="budgets_amount"),
    )
    op.create_table(
        "vouchers",
        _text("digest"),
        _text("id"),
        _number("amount_nano"),
        _text("currency"),
        _number("created_us"),
        _number("expires_us"),
        _number("redeemed_us", nullable=True),
        _text("redeemed_by", nullable=True),
        sa.PrimaryKeyConstraint("digest"),
        sa.UniqueConstraint("id"),
        sa.CheckConstraint("amount_nano > 0", name="vouchers_amount"),
    )


def _idle() -> None:
    op.create_table(
        "idle_policies",
        _text("tenant_id"),
        _text("signals"),
        _number("warn_us"),
        _number("pause_us"),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    op.create_table(
        "idle_spells",
        _text("workload_id"),
        _text("tenant_id"),
        _number("since_us"),
        _number("warned_us", nullable=True),
        _number("paused_us", nullable=True),
        _number("price_per_hour_nano"),
        _number("saved_nano"),
        sa.PrimaryKeyConstraint("workload_id"),
    )


def _reconciliation() -> None:
    op.create_table(
        "holdings",
        _text("lease_id"),
        _text("tenant_id"),
        _number("active_us"),
        _number("since_us", nullable=True),
        _number("spells"),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    op.create_table(
        "unit_times",
        _text("unit"),
        _text("lease_id"),
        _number("ran_us"),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("unit"),
    )
    op.create_index("unit_times_lease", "unit_times", ["lease_id"], unique=False)
    op.create_table(
        "discrepancies",
        _text("id"),
        _text("lease_id"),
        _text("tenant_id"),
        _number("found_us"),
        _number("scheduler_us"),
        _number("node_us", nullable=True),
        _number("billed_us"),
        _number("posted_nano"),
        _number("rated_nano"),
        _number("resolved_us", nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _make_immutable(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_immutable() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} are immutable' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_immutable()"
    )


def _move_credit() -> None:
    """From nothing but INSERT ... SELECT, which both databases know."""
    known = "FROM tenants WHERE credit_nano IS NOT NULL"
    moved = f"{known} AND credit_nano <> 0"
    cash, wallet = "'cash:' || id || ':' || currency", "'wallet:' || id || ':' || currency"
    sequence = "(SELECT count(*) FROM tenants earlier WHERE earlier.id <= tenants.id)"
    op.execute(f"INSERT INTO wallets (tenant_id, prepaid, runway_told) SELECT id, true, 0 {known}")
    op.execute(
        "INSERT INTO transfers (id, sequence, at_us, kind, debit, credit, amount_nano, currency, tenant_id, subject) "
        f"SELECT 'opening:' || id, {sequence}, created_us, 'opening', "
        f"CASE WHEN credit_nano > 0 THEN {cash} ELSE {wallet} END, "
        f"CASE WHEN credit_nano > 0 THEN {wallet} ELSE {cash} END, abs(credit_nano), currency, id, '' {moved}"
    )
    op.execute(f"INSERT INTO accounts (id, balance_nano) SELECT {wallet}, credit_nano {moved}")
    op.execute(f"INSERT INTO accounts (id, balance_nano) SELECT {cash}, -credit_nano {moved}")
    op.execute("INSERT INTO counters (name, value) SELECT 'transfers', count(*) FROM tenants")
    op.execute("INSERT INTO charges_due (lease_id) SELECT DISTINCT lease_id FROM intervals")
    op.drop_column("tenants", "credit_nano")
