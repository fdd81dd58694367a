"""The tables of machines that joined: invitations, machines, and the certificates that were issued to them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gpuyard.store.tables import METADATA

INVITATIONS = Table(
    "machine_invitations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("name", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
    Column("key_sha256", Text),
    Column("machine_id", Text),
    Column("withdrawn_us", BigInteger),
)

MACHINES = Table(
    "machines",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("joined_us", BigInteger, nullable=False),
    Column("joined_by", Text, nullable=False),
    Column("revoked_us", BigInteger),
    Column("heartbeat_us", BigInteger),
    Column("clock_ahead_us", BigInteger),
    Column("version", Text),
    Column("inventory", Text),
    Column("inventory_us", BigInteger),
    Column("late_since_us", BigInteger),
)

CERTIFICATES = Table(
    "machine_certificates",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("machine_id", Text, nullable=False),
    Column("invitation_id", Text),
    Column("key_sha256", Text, nullable=False),
    Column("issued_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
    Column("superseded_us", BigInteger),
    Column("revoked_us", BigInteger),
    Index("machine_certificates_by_machine", "machine_id"),
)
