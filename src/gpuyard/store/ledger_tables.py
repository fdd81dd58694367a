"""The tables of the ledger, wallets, budgets, vouchers, idle policies and reconciliation."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Table, Text

from gpuyard.store.tables import METADATA

_RANGE = "BETWEEN -9000000000000000000 AND 9000000000000000000"

# A balance is the fold of the transfers, kept so that reading it costs nothing. Past the range SQLite would turn it
# into a float: the check refuses the transfer instead.
ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("balance_nano", BigInteger, nullable=False),
    CheckConstraint(f"balance_nano {_RANGE}", name="accounts_range"),
)

TRANSFERS = Table(
    "transfers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    CheckConstraint("amount_nano BETWEEN 1 AND 9000000000000000000", name="transfers_amount"),
    CheckConstraint("debit <> credit", name="transfers_accounts"),
)
Index("transfers_tenant", TRANSFERS.c.tenant_id, TRANSFERS.c.sequence)


CHARGES = Table(
    "charges",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("offer", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("revenue_nano", BigInteger, nullable=False),
    Column("credited_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("postings", BigInteger, nullable=False),
    Column("settled_us", BigInteger, nullable=False),
    CheckConstraint("held_nano >= 0", name="charges_held"),
)
Index("charges_tenant", CHARGES.c.tenant_id, CHARGES.c.subject)

# Leases of which an interval was closed that is not yet in the ledger: written with the interval, so never forgotten.
CHARGES_DUE = Table("charges_due", METADATA, Column("lease_id", Text, primary_key=True))

WALLETS = Table(
    "wallets",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("prepaid", Boolean, nullable=False),
    Column("runway_told", Integer, nullable=False),
    Column("exhausted_us", BigInteger),
)

BUDGETS = Table(
    "budgets",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("action", Text, primary_key=True),
    Column("amount_nano", BigInteger, nullable=False),
    Column("fired_for", Text),
    CheckConstraint("amount_nano > 0", name="budgets_amount"),
)

VOUCHERS = Table(
    "vouchers",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("amount_nano", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("redeemed_us", BigInteger),
    Column("redeemed_by", Text),
    CheckConstraint("amount_nano > 0", name="vouchers_amount"),
)

IDLE_POLICIES = Table(
    "idle_policies",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("signals", Text, nullable=False),
    Column("warn_us", BigInteger, nullable=False),
    Column("pause_us", BigInteger, nullable=False),
)

IDLE_SPELLS = Table(
    "idle_spells",
    METADATA,
    Column("workload_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("warned_us", BigInteger),
    Column("paused_us", BigInteger),
    Column("price_per_hour_nano", BigInteger, nullable=False),
    Column("saved_nano", BigInteger, nullable=False),
)

# What the event log says of each lease (the scheduler's word) and what the node says of each unit.
HOLDINGS = Table(
    "holdings",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("active_us", BigInteger, nullable=False),
    Column("since_us", BigInteger),
    Column("spells", BigInteger, nullable=False),
    Column("share_ppm", BigInteger),  # since `since_us`
    Column("card_us", BigInteger),  # cards x microseconds; absent: of some of its time the share is not known
)

UNIT_TIMES = Table(
    "unit_times",
    METADATA,
    Column("unit", Text, primary_key=True),
    Column("lease_id", Text, nullable=False),
    Column("ran_us", BigInteger, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("share_ppm", BigInteger),
)
Index("unit_times_lease", UNIT_TIMES.c.lease_id)

DISCREPANCIES = Table(
    "discrepancies",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("lease_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("found_us", BigInteger, nullable=False),
    Column("scheduler_us", BigInteger, nullable=False),
    Column("node_us", BigInteger),
    Column("billed_us", BigInteger, nullable=False),
    Column("posted_nano", BigInteger, nullable=False),
    Column("rated_nano", BigInteger, nullable=False),
    Column("resolved_us", BigInteger),
    Column("scheduler_card_us", BigInteger),
    Column("node_card_us", BigInteger),
    Column("billed_card_us", BigInteger),
)

IMMUTABLE = ("transfers",)
