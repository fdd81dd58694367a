"""Making the schema of a new database, and bringing an older one up to date.

A new one is made from the tables as they are now; an older one goes through the migrations. A test holds the two
against each other. Only the latter needs alembic, which the server thus never carries for a database of its version.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from gpuyard.store import (  # noqa: F401
    access_tables,
    attestation_tables,
    dialect_tables,
    egress_tables,
    incident_tables,
    ledger_tables,
    machine_tables,
    money_tables,
    move_tables,
    queue_tables,
    residency_tables,
    user_tables,
)
from gpuyard.store.tables import METADATA, PARTIAL_INDEXES

HEAD = "0014"  # the schema this build knows; a test compares it with the newest migration
_IMMUTABLE = ("intervals", "events", *money_tables.IMMUTABLE, *ledger_tables.IMMUTABLE, *access_tables.IMMUTABLE)
_MIGRATIONS = Path(__file__).parent / "migrations"


def known_revisions() -> frozenset[str]:
    """Every schema that this build can bring up to date."""
    return frozenset(path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def create(connection: Connection) -> None:
    """The newest schema, in an empty database."""
    METADATA.create_all(connection)
    for statement in PARTIAL_INDEXES:
        connection.exec_driver_sql(statement)
    for table in _IMMUTABLE:
        for statement in immutable(table, connection.dialect.name):
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO counters (name, value) VALUES ('fleet', 0), ('events', 0), ('audit', 0)")
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO alembic_version (version_num) VALUES ('{HEAD}')")  # noqa: S608


def immutable(table: str, dialect: str) -> list[str]:
    """What makes a table one that is added to and never changed, whoever asks."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    return [
        f"CREATE FUNCTION {table}_immutable() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} are immutable' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_immutable()",
    ]


def upgrade(connection: Connection) -> None:
    """Every migration that the database has not seen."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
