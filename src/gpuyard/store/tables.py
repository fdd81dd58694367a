"""The tables, as SQLAlchemy Core sees them. The migrations spell them out again: history must not change with them.

Moments are BIGINT microseconds, money BIGINT nano-units, monotonic readings BIGINT nanoseconds, JSON is TEXT.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

META = Table("meta", METADATA, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

COUNTERS = Table(
    "counters", METADATA, Column("name", Text, primary_key=True), Column("value", BigInteger, nullable=False)
)

NODES = Table(
    "nodes",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("rack", Text),
    Column("region", Text),
    Column("simulated", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("topology", Text),
)

CARDS = Table(
    "cards",
    METADATA,
    Column("uuid", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("pci_address", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("numa_node", Integer),
    Column("driver", Text),
    Column("simulated", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("mig", Text),  # what it can be cut into; absent: it is not in MIG mode
)

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("currency", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("user", Text, nullable=False, quote=True),
    Column("role", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
    Column("expires_us", BigInteger),  # none: until it is revoked
    Column("last_used_us", BigInteger),  # to the hour
)

WORKLOADS = Table(
    "workloads",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("reason_params", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("exit_code", Integer),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("cpu_only", Boolean),  # started without its cards; absent: with them
    Index("workloads_state", "state"),
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("workload_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workload_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("replica", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("run", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("node", Text),
    Column("option", Text, nullable=False),
    Column("terms_currency", Text),
    Column("terms_active_nano", BigInteger),
    Column("terms_stopped_nano", BigInteger),
    Column("terms_minimum_us", BigInteger),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("not_before_us", BigInteger, nullable=False),
    Column("run_started_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("detail", Text),
    Index("leases_tenant", "tenant_id", "id"),
    Index("leases_workload", "workload_id", "id"),
    Index("leases_state", "state"),
)

SLICES = Table(
    "slices",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("card_uuid", Text, primary_key=True),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("compute_ppm", BigInteger, nullable=False),
    Column("guarantee", Text, nullable=False),
    Column("mig", Text),  # the instance that backs it, where one does
    Index("slices_card", "card_uuid"),
)


def _metered() -> list[Column[object]]:
    """What meters and intervals have in common: copies of all that billing needs."""
    return [
        Column("tenant_id", Text, nullable=False),
        Column("workload_id", Text, nullable=False),
        Column("workload_name", Text, nullable=False),
        Column("offer", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("run", Integer, nullable=False),
        Column("start_us", BigInteger, nullable=False),
        Column("node", Text),
        Column("boot_id", Text, nullable=False),
        Column("monotonic_start_ns", BigInteger, nullable=False),
        Column("price_per_hour_nano", BigInteger, nullable=False),
        Column("currency", Text, nullable=False),
        Column("minimum_us", BigInteger, nullable=False),
    ]


METERS = Table(
    "meters",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    *_metered(),
    Column("proven_us", BigInteger, nullable=False),
    Column("proven_ns", BigInteger, nullable=False),
    Column("card_uuids", Text),  # with commas between; absent: none, or not written down
    Column("share_ppm", BigInteger),  # of cards, all slices together; absent: not written down
)

INTERVALS = Table(
    "intervals",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    *_metered(),
    Column("end_us", BigInteger, nullable=False),
    Column("monotonic_end_ns", BigInteger, nullable=False),
    Column("proof", Text, nullable=False),
    Column("card_uuids", Text),
    Column("share_ppm", BigInteger),
    Index("intervals_tenant", "tenant_id", "lease_id", "sequence"),
    Index("intervals_workload", "workload_id", "lease_id", "sequence"),
    Index("intervals_node", "node", "end_us"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("tenant_id", Text),
    Column("actor", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_tenant", "tenant_id", "sequence"),
)

IDEMPOTENCY = Table(
    "idempotency",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("workload_id", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

# The removed and the ended stay for ever; what is read each second must not walk over them. These are plain statements
# because an Index with `postgresql_where` loads that dialect into every server. Queries spell the conditions out alike:
# a database uses a partial index only where it can tell that the query is about it.
PARTIAL_INDEXES = (
    "CREATE UNIQUE INDEX workloads_live_name ON workloads (tenant_id, name) WHERE state <> 'removed'",
    "CREATE INDEX workloads_live ON workloads (id) WHERE state <> 'removed'",
    "CREATE INDEX workloads_live_tenant ON workloads (tenant_id, id) WHERE state <> 'removed'",
    "CREATE INDEX leases_live ON leases (id) WHERE state <> 'ended'",
    "CREATE UNIQUE INDEX leases_live_replica ON leases (workload_id, replica) WHERE state <> 'ended'",
    "CREATE INDEX charges_held ON charges (subject) WHERE held_nano > 0",
    "CREATE INDEX attestations_open ON attestations (workload_id) WHERE ended_us IS NULL",
    "CREATE UNIQUE INDEX moves_open ON moves (lease_id) WHERE ended_us IS NULL",
    "CREATE UNIQUE INDEX incidents_open ON incidents "
    "(cause, coalesce(node, ''), coalesce(card_uuid, ''), coalesce(lease_id, '')) WHERE closed_us IS NULL",
)
