"""What is left when the disk is full, a process is killed, a connection breaks or a lock is not let go of."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.store import database, events, meta
from gpuyard.store.database import Store
from gpuyard.texts import error_text

_WRITE_UNTIL_KILLED = """
import sys
from gpuyard.model.events import Event
from gpuyard.store import events, meta
from gpuyard.store.database import Store
store = Store.open(sys.argv[1])
while True:
    with store.write() as c:
        last = events.append(c, [Event("told", "x" * 3000, 1)] * 7)
        meta.put(c, "last", str(last))
    print(last, flush=True)
"""
_STOP_HALF_WAY = """
import sys
from gpuyard.model.events import Event
from gpuyard.store import events, meta
from gpuyard.store.database import Store
store = Store.open(sys.argv[1])
with store.write() as c:
    meta.put(c, "half", "done")
    for _ in range(3000):
        events.append(c, [Event("told", "x" * 3000, 1)])
    print("inside", flush=True)
    sys.stdin.read(1)
"""


class Interruption(Exception):
    """What stops a transaction half way."""


def _write_half(store: Store, told: list[Event]) -> None:
    with store.write() as c:
        meta.put(c, "half", "done")
        for event in told:
            events.append(c, [event])
        raise Interruption


def _start(program: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _kill(process: subprocess.Popen[str]) -> str:
    """Kills it at once and returns what it had said by then and was not read."""
    process.kill()
    said, _ = process.communicate(timeout=60)
    return said


def test_a_full_disk_is_told_and_nothing_of_the_transaction_stays(file_url: str) -> None:
    store = Store.open(file_url)
    with store.write() as c:
        meta.put(c, "before", "here")
        pages = int(c.exec_driver_sql("PRAGMA page_count").scalar_one())
        c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(YardError) as refused:
        _write_half(store, [Event("told", "x" * 3000, 1)] * 1000)
    assert refused.value.code == "storage_full"
    for language in ("en", "zh"):
        assert file_url.removeprefix("sqlite:///") in error_text("storage_full", language, refused.value.params)
    with store.write() as c:
        assert meta.get(c, "before") == "here"
        assert meta.get(c, "half") is None
        assert events.after(c, 0, None, 9) == []
        c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2000}")
    with store.write() as c:  # there is room again, and the numbers go on where they were
        assert events.append(c, [Event("told", "x" * 3000, 1)] * 100) == 100
    store.close()


def test_a_process_killed_while_it_writes_loses_nothing_that_it_had_committed(lasting_url: str) -> None:
    Store.open(lasting_url).close()
    committed = 0
    for commits in (1, 2, 5):
        process = _start(_WRITE_UNTIL_KILLED, lasting_url)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(commits)]
        lines += _kill(process).splitlines()
        said = [int(line) for line in lines if line.strip()]
        assert said[0] > committed
        store = Store.open(lasting_url)
        with store.write() as c:
            committed = events.last(c)
            assert committed >= said[-1]
            assert committed % 7 == 0
            assert meta.get(c, "last") == str(committed)
            assert len(events.after(c, 0, None, committed + 9)) == committed
            if store.dialect == "sqlite":
                assert c.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        store.close()


def test_a_process_killed_inside_a_transaction_leaves_nothing_of_it_and_no_lock(lasting_url: str) -> None:
    store = Store.open(lasting_url)
    process = _start(_STOP_HALF_WAY, lasting_url)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    with store.read() as c:  # readers are not held up meanwhile
        assert meta.get(c, "half") is None
    _kill(process)
    with store.write() as c:
        assert meta.get(c, "half") is None
        assert events.append(c, [Event("told", "x", 1)]) == 1
        if store.dialect == "sqlite":
            assert c.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    store.close()


def test_an_error_inside_a_transaction_undoes_all_of_it(store: Store) -> None:
    with pytest.raises(Interruption):
        _write_half(store, [])
    with store.read() as c:
        assert meta.get(c, "half") is None


def test_a_reader_sees_one_state_of_the_world_while_another_writes(lasting_url: str) -> None:
    store, other = Store.open(lasting_url), Store.open(lasting_url)
    with store.write() as c:
        meta.put(c, "value", "old")
    with store.read() as reader:
        assert meta.get(reader, "value") == "old"
        with other.write() as c:
            meta.put(c, "value", "new")
        assert meta.get(reader, "value") == "old"
    with store.read() as c:
        assert meta.get(c, "value") == "new"
    store.close()
    other.close()


def test_readers_and_writers_of_many_threads_share_one_store(store: Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                with store.write() as c:
                    count = int(meta.get(c, "count") or 0)
                    meta.put(c, "count", str(count + 1))
                    events.append(c, [Event("told", f"{number}-{turn}", 1)])
                with store.read() as c:
                    assert int(meta.get(c, "count") or 0) == events.last(c)
        except BaseException as failure:  # a thread's failure must reach the test
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with store.read() as c:
        assert meta.get(c, "count") == "60"


def test_the_generation_changes_with_every_write_and_with_no_read(store: Store) -> None:
    seen = [store.generation]
    with store.write() as c:
        meta.put(c, "value", "1")
        seen.append(store.generation)
    seen.append(store.generation)
    with pytest.raises(Interruption):
        _write_half(store, [])
    seen.append(store.generation)
    assert len(set(seen)) == 4
    with store.read() as c:
        meta.get(c, "value")
    assert store.generation == seen[-1]


def test_a_writer_who_never_lets_go_is_not_waited_for_for_ever(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    holder, other = Store.open(file_url), Store.open(file_url)
    with holder.write() as c:
        meta.put(c, "value", "held")
        with pytest.raises(YardError) as refused, other.write():
            pytest.fail("two writers at once")
    assert (refused.value.code, refused.value.params["reason"]) == ("store_unavailable", "database is locked")
    with other.read() as c:
        assert meta.get(c, "value") == "held"
    holder.close()
    other.close()


@pytest.mark.postgres
def test_a_broken_connection_is_told_and_the_next_transaction_has_a_new_one(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    other = Store.open(postgres_url)

    def break_off() -> None:
        with store.write() as c:
            meta.put(c, "half", "done")
            mine = c.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with other.write() as killer:
                assert killer.exec_driver_sql(f"SELECT pg_terminate_backend({mine}, 5000)").scalar_one()
            meta.put(c, "half", "done")

    with pytest.raises(YardError) as refused:
        break_off()
    assert refused.value.code == "store_unavailable"
    with store.write() as c:
        assert meta.get(c, "half") is None
        meta.put(c, "whole", "done")
    store.close()
    other.close()
