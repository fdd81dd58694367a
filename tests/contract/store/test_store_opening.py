"""Opening a store: for the first time, again, at once, on what is not a store, and by a URL that is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.engine import make_url

from gpuyard.model.errors import YardError
from gpuyard.store import meta, schema, tables
from gpuyard.store.database import Store
from gpuyard.store.schema import HEAD
from gpuyard.texts import error_text

_OPEN_AND_PUT = """
import sys
from gpuyard.store import meta
from gpuyard.store.database import Store
sys.stdout.write("ready"); sys.stdout.flush(); sys.stdin.read(1)
store = Store.open(sys.argv[1])
with store.write() as c:
    meta.put(c, sys.argv[2], "here")
store.close()
"""
_OPEN_TWICE_AND_LIST_MODULES = """
import sys, time
from gpuyard.store.database import Store
import sqlalchemy.dialects.sqlite
began = time.process_time()
Store.open(sys.argv[1]).close()
print(time.process_time() - began, "alembic" in sys.modules)
"""


def test_what_was_written_is_there_after_opening_again(lasting_url: str) -> None:
    first = Store.open(lasting_url)
    with first.write() as c:
        meta.put(c, "yard", "one")
        meta.put(c, "yard", "two")
    first.close()
    second = Store.open(lasting_url)
    with second.read() as c:
        assert meta.get(c, "yard") == "two"
        assert meta.get(c, "nothing") is None
    second.close()


def test_opening_makes_the_schema_from_nothing_and_finds_it_the_next_time(empty_url: str) -> None:
    for _ in range(3):
        store = Store.open(empty_url)
        with store.read() as c:
            assert c.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == [HEAD]
            assert c.exec_driver_sql("SELECT count(*) FROM counters").scalar_one() == 3
        store.close()


def test_a_new_database_is_as_the_migrations_would_have_made_it(empty_url: str) -> None:
    from alembic.script import ScriptDirectory

    migrations = Path(tables.__file__).parent / "migrations"
    assert ScriptDirectory(str(migrations)).get_heads() == [HEAD]
    url = make_url(empty_url)
    engine = create_engine(url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url)
    shapes = []
    for make in (schema.upgrade, schema.create):
        with engine.begin() as c:
            make(c)
        with engine.begin() as c:
            shapes.append(_shape(c))
            _empty(c)
    engine.dispose()
    migrated, created = shapes
    assert set(created) >= {*tables.METADATA.tables, "indexes", "triggers"}
    assert created == migrated


def _shape(c: Connection) -> dict[str, object]:
    """Every table with its columns and key, and the words of every index and trigger, as the database tells them."""
    inspector = inspect(c)
    shape: dict[str, object] = {
        table: (
            sorted(
                (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
            ),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(str(sorted(constraint.items())) for constraint in inspector.get_check_constraints(table)),
        )
        for table in inspector.get_table_names()
    }
    if c.dialect.name == "sqlite":
        asked = "SELECT name, sql FROM sqlite_master WHERE type = '{}' AND sql IS NOT NULL"
        kinds = {"indexes": "index", "triggers": "trigger"}
        told = {name: c.exec_driver_sql(asked.format(kind)).all() for name, kind in kinds.items()}
    else:
        told = {
            "indexes": c.exec_driver_sql(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            ).all(),
            "triggers": c.exec_driver_sql(
                "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
            ).all(),
        }
    for kind, rows in told.items():
        assert rows
        shape[kind] = sorted((name, " ".join(words.split())) for name, words in rows)
    return shape


def _empty(c: Connection) -> None:
    if c.dialect.name == "sqlite":
        for table in inspect(c).get_table_names():
            c.exec_driver_sql(f'DROP TABLE "{table}"')
    else:
        c.exec_driver_sql("DROP SCHEMA public CASCADE")
        c.exec_driver_sql("CREATE SCHEMA public")


def test_processes_that_open_a_new_database_at_once_all_get_in(empty_url: str) -> None:
    command = [sys.executable, "-c", _OPEN_AND_PUT, empty_url]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen([*command, f"racer-{n}"], stdin=pipe, stdout=pipe, stderr=pipe) for n in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.read(5) == b"ready"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"!")
        racer.stdin.flush()
    for racer in racers:
        _, said = racer.communicate(timeout=60)
        assert racer.returncode == 0, said.decode()
    store = Store.open(empty_url)
    with store.read() as c:
        assert [meta.get(c, f"racer-{n}") for n in range(3)] == ["here"] * 3
    store.close()


def test_a_store_of_a_newer_version_is_refused_and_left_alone(lasting_url: str) -> None:
    store = Store.open(lasting_url)
    with store.write() as c:
        c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    with pytest.raises(YardError) as refused:
        Store.open(lasting_url)
    assert refused.value.code == "state_dir_newer"
    assert (refused.value.params["found"], refused.value.params["known"]) == ("9999", HEAD)
    url = make_url(lasting_url)
    engine = create_engine(url if url.drivername == "sqlite" else url.set(drivername="postgresql+psycopg"))
    with engine.connect() as c:
        assert c.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "9999"
    engine.dispose()


def test_opening_a_store_that_is_up_to_date_is_quick_and_leaves_alembic_alone(file_url: str) -> None:
    Store.open(file_url).close()
    command = [sys.executable, "-c", _OPEN_TWICE_AND_LIST_MODULES, file_url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert said[1] == "False"
    assert float(said[0]) < 0.1  # CPU seconds; a tenth of it is usual


@pytest.mark.parametrize(
    "content", [b"this is not a database\n" * 500, b"\0" * 5000, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_file_that_is_garbage_is_refused_with_one_sentence_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "yard.db"
    path.write_bytes(content)
    with pytest.raises(YardError) as refused:
        Store.open(f"sqlite:///{path}")
    assert refused.value.code == "state_dir_unusable"
    for language in ("en", "zh"):
        sentence = error_text(refused.value.code, language, refused.value.params)
        assert str(path) in sentence
        assert "\n" not in sentence
    assert path.read_bytes() == content


def test_a_file_that_is_damaged_is_refused_and_not_repaired_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "yard.db"
    Store.open(f"sqlite:///{path}").close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(YardError) as refused:
        Store.open(f"sqlite:///{path}")
    assert refused.value.code == "state_dir_unusable"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "yard.db",
        "postgresql://yard:hunter2@host:port/yard",
        "mysql://yard:hunter2@127.0.0.1/yard",
        "postgresql://yard:hunter2@127.0.0.1:1/yard?sslmood=off",
        "sqlite:////no/such/folder/yard.db",
        "sqlite:///yard.db?mode=ro",
        "sqlite://yard.db",
        "sqlite:////",
    ],
)
def test_a_url_that_names_no_database_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(YardError) as refused:
        Store.open(url)
    assert refused.value.code == "database_url_invalid"
    assert "hunter2" not in error_text("database_url_invalid", "en", refused.value.params)


def test_a_server_that_does_not_answer_is_named_without_the_password() -> None:
    with pytest.raises(YardError) as refused:
        Store.open("postgresql://yard:hunter2@127.0.0.1:1/yard")
    assert refused.value.code == "store_unavailable"
    sentence = error_text(refused.value.code, "en", refused.value.params)
    assert "hunter2" not in sentence
    assert "127.0.0.1" in sentence


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(YardError) as refused:
        Store.open("postgresql://127.0.0.1/yard")
    assert refused.value.code == "extra_missing"
    assert refused.value.params["extra"] == "postgres"


@pytest.mark.postgres
def test_a_second_yard_on_the_same_postgres_database_is_refused_until_the_first_is_gone(postgres_url: str) -> None:
    first, second = Store.open(postgres_url), Store.open(postgres_url)
    first.hold_exclusively()
    with pytest.raises(YardError) as refused:
        second.hold_exclusively()
    assert refused.value.code == "database_in_use"
    first.close()
    second.hold_exclusively()
    second.close()
