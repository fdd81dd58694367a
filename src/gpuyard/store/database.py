"""Opening a store, and its two kinds of transaction."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from gpuyard.model.errors import YardError
from gpuyard.store import schema, touched

BUSY_SECONDS = 10
_HOLD_SECONDS = 2
_SCHEMA_LOCK = 0x67707579  # "gpuy"
_YARD_LOCK = 0x67707561
_WRITE = "gpuyard_write"


class Store:
    """A database with this build's schema.

    `write` is serialised: on SQLite by a lock of this process and BEGIN IMMEDIATE, on PostgreSQL by row locks. Both
    kinds of transaction may be used from any thread, but not one inside the other.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self.dialect = engine.dialect.name
        self._lock = threading.RLock()
        # One connection serves an in-memory database, so its readers take turns with its writers.
        self._shared = isinstance(engine.pool, StaticPool)
        self._holder: Connection | None = None
        # What goes along with every change; returns what is to be done once it is committed.
        self.before_commit: Callable[[Connection], Callable[[], None] | None] = lambda _: None
        self.touched = touched.TouchLog()
        self.generation = 0  # changes with every write of this process, which is the only one that writes

    @classmethod
    def open(cls, url: str) -> Store:
        """Opens `sqlite:///path`, `sqlite://` (in memory) or `postgresql://...`, creating or upgrading the schema.

        Raises YardError `database_url_invalid`, `extra_missing`, `state_dir_newer`, `state_dir_unusable`,
        `storage_full` or `store_unavailable`.
        """
        parsed = _parse(url)
        store = cls(_engine(parsed), _shown(parsed))
        try:
            with store._translated():
                store._bring_to_head()
        except BaseException:
            store.close()
            raise
        return store

    @contextmanager
    def write(self, *, tells: bool = True) -> Generator[Connection]:
        """A transaction that may change things: all of it or nothing. `tells` is False where it changes nothing that
        any answer is made of: what was answered before goes on being true.

        Raises YardError `storage_full` or `store_unavailable`; nothing was changed then.
        """
        with self._translated(), self._lock:
            self.generation += tells  # before and after: an answer made while this goes on is kept for neither
            rows: set[touched.Touch] = set()
            options = {_WRITE: True, touched.OPTION: rows}
            try:
                with self._engine.connect().execution_options(**options) as connection, connection.begin():
                    yield connection
                    after = self.before_commit(connection)
                    if rows:
                        self.touched.publish(rows)
                if after is not None:
                    after()
            finally:
                if rows:
                    self.touched.publish(rows)
                self.generation += tells

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A transaction that sees one state of the database.

        Raises YardError `store_unavailable`.
        """
        if self._shared:
            with self._translated(), self._lock, self._engine.connect() as connection, connection.begin():
                yield connection
            return
        with self._translated(), self._engine.connect() as connection:
            if self.dialect == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def hold_exclusively(self) -> None:
        """On PostgreSQL, keeps other yards off this database until `close`; a state directory's lock does so otherwise.

        Raises YardError `database_in_use`.
        """
        if self.dialect != "postgresql":
            return
        with self._translated():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            # The server takes a moment to notice that a yard was killed; its successor must not be refused for that.
            deadline = time.monotonic() + _HOLD_SECONDS
            while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_YARD_LOCK})").scalar_one():
                if time.monotonic() > deadline:
                    connection.close()
                    raise YardError("database_in_use")
                time.sleep(0.05)
            self._holder = connection

    def close(self) -> None:
        """Lets go of every connection."""
        if self._holder is not None:
            with suppress(exc.DBAPIError), self._holder as connection:
                # Said, because the session of a connection that is merely closed ends a moment later.
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_YARD_LOCK})")
            self._holder = None
        self._engine.dispose()

    def _bring_to_head(self) -> None:
        if self._schema_is_current():
            return
        with self.write() as connection:
            if self.dialect == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            if self._engine.dialect.has_table(connection, "alembic_version"):
                schema.upgrade(connection)
            else:
                schema.create(connection)
        self._schema_is_current()

    def _schema_is_current(self) -> bool:
        """Cheap: alembic is imported only where there is something to upgrade.

        Raises YardError `state_dir_newer`.
        """
        with self._engine.connect() as connection:
            if not self._engine.dialect.has_table(connection, "alembic_version"):
                return False
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found == schema.HEAD:
            return True
        if found is not None and found not in schema.known_revisions():
            raise YardError("state_dir_newer", path=self._name, found=found, known=schema.HEAD)
        return False

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            raise _translate(error, self._name) from error
        except exc.TimeoutError as error:
            raise YardError("store_unavailable", reason="all of its connections are in use") from error


# What SQLite says of a file that another try will not mend.
_UNUSABLE_FILE = ("not a database", "malformed", "readonly database")


def _translate(error: exc.DBAPIError, name: str) -> Exception:
    """What the database says, as a refusal; a broken rule of the schema stays what it is."""
    said = str(error.orig)
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    # A full disk has no room for SQLite's shared index either, which it reports as a failure of its own.
    no_index = getattr(error.orig, "sqlite_errorname", None) == "SQLITE_IOERR_SHMSIZE"
    if "disk is full" in said or sqlstate == "53100" or no_index:
        return YardError("storage_full", what=name)
    if any(sign in said for sign in _UNUSABLE_FILE):
        return YardError("state_dir_unusable", path=name, reason=said)
    if "connection option" in said:
        return YardError("database_url_invalid", url=name, reason=said.strip())
    if isinstance(error, exc.OperationalError | exc.InterfaceError) or sqlstate.startswith(("08", "57", "40")):
        return YardError("store_unavailable", reason=said.strip().split("\n")[0].rstrip("."))
    return error


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # Not repeated: what cannot be taken apart cannot be rid of its password either.
        raise YardError("database_url_invalid", url="--", reason="it is not a URL") from None
    shown = _shown(parsed)
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise YardError("database_url_invalid", url=shown, reason="it must begin with sqlite:// or postgresql://")
    if parsed.get_backend_name() == "postgresql":
        try:
            import psycopg  # noqa: F401 - an extra; asked for here so that its absence has a sentence
        except ImportError:
            command = 'pip install "gpuyard[postgres]"'
            raise YardError("extra_missing", extra="postgres", command=command) from None
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.query or parsed.host:
        reason = "write sqlite:/// and an absolute path, without options"
        raise YardError("database_url_invalid", url=parsed.render_as_string(), reason=reason)
    return parsed.set(drivername="sqlite")


def _shown(url: URL) -> str:
    """How messages name the database: a file by its path, a server by its URL without the password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": BUSY_SECONDS})
    # A prepared statement takes some 20 KiB, so those that are kept cost more than preparing a rare one anew.
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False, "cached_statements": 24}
    if url.database in (None, "", ":memory:"):
        engine = create_engine("sqlite://", connect_args=arguments, poolclass=StaticPool)
    else:
        if not Path(url.database).parent.is_dir():
            raise YardError("database_url_invalid", url=url.render_as_string(), reason="its folder does not exist")
        if Path(url.database).is_dir():
            raise YardError("database_url_invalid", url=url.render_as_string(), reason="it is a folder")
        engine = create_engine(url, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def _set_up(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # the driver must not begin transactions by itself: `_begin` does
        _write_ahead(raw)
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA cache_size=-256")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Turns the file to WAL, which it then stays in. SQLite does not wait for its turn here, whatever its timeout: two
    processes that open a new file at once would fail one another."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
