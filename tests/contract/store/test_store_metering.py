"""Meters, intervals and events: what billing and audit stand on, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, exc

from gpuyard.model.events import Event
from gpuyard.model.leases import Interval, Proof
from gpuyard.model.states import LeaseState
from gpuyard.store import events, meters
from gpuyard.store.database import Store
from gpuyard.store.meters import Meter

Make = Callable[..., Meter]


def test_a_meter_comes_back_as_it_was_opened(store: Store, a_meter: Make) -> None:
    other = a_meter(lease_id="ls-2", state=LeaseState.STOPPED, node=None, price_per_hour_nano=2**62, start_us=2**61)
    with store.write() as c:
        meters.open(c, a_meter())
        meters.open(c, other)
    with store.read() as c:
        assert meters.open_meters(c) == {"ls-1": a_meter(), "ls-2": other}


def test_a_lease_has_one_open_meter(store: Store, a_meter: Make) -> None:
    with store.write() as c:
        meters.open(c, a_meter())
    with pytest.raises(ValueError, match="ls-1"), store.write() as c:
        meters.open(c, a_meter(start_us=7))
    with store.read() as c:
        assert meters.open_meters(c) == {"ls-1": a_meter()}


def test_a_proven_moment_moves_forward_and_never_back(store: Store, a_meter: Make) -> None:
    with store.write() as c:
        meters.open(c, a_meter())
        meters.open(c, a_meter(lease_id="ls-2"))
        meters.advance(c, [("ls-1", 3_000, 7_000), ("ls-2", 2_000, 6_000), ("ls-9", 1, 1)])
        meters.advance(c, [("ls-1", 2_999, 9_999)])
        meters.advance(c, [])
        assert meters.open_meters(c) == {
            "ls-1": a_meter(proven_us=3_000, proven_ns=7_000),
            "ls-2": a_meter(lease_id="ls-2", proven_us=2_000, proven_ns=6_000),
        }


def test_closing_a_meter_writes_all_that_billing_needs_and_closing_again_finds_nothing(
    store: Store, a_meter: Make
) -> None:
    with store.write() as c:
        meters.open(c, a_meter())
        interval = meters.close(c, "ls-1", 9_000, 8_005_000, Proof.EXIT_RECORD)
        assert meters.close(c, "ls-1", 99_000, 99_000_000, Proof.OBSERVED) is None
    assert interval == Interval(
        lease_id="ls-1",
        sequence=1,
        tenant_id="t-1",
        workload_id="wl-1",
        workload_name="train",
        offer="rtx4090-quarter",
        state=LeaseState.ACTIVE,
        run=1,
        start_us=1_000,
        end_us=9_000,
        node="node-1",
        boot_id="boot-1",
        monotonic_start_ns=5_000,
        monotonic_end_ns=8_005_000,
        proof=Proof.EXIT_RECORD,
        price_per_hour_nano=600_000_000,
        currency="USD",
        minimum_us=60_000_000,
    )
    with store.read() as c:
        assert meters.intervals(c) == [interval]
        assert meters.open_meters(c) == {}


def test_an_interval_never_ends_before_it_began(store: Store, a_meter: Make) -> None:
    with store.write() as c:
        meters.open(c, a_meter())
        interval = meters.close(c, "ls-1", 1, 1, Proof.LAST_PROVEN)
    assert interval is not None
    assert (interval.duration_us, interval.monotonic_end_ns) == (0, interval.monotonic_start_ns)


def test_the_sequence_of_a_lease_has_no_gaps_even_where_a_transaction_failed(store: Store, a_meter: Make) -> None:
    for number in range(4):
        with store.write() as c:
            meters.open(c, a_meter(start_us=number * 10))
        with pytest.raises(Interruption):
            _undone(store, lambda c, end=number * 10 + 10: meters.close(c, "ls-1", end, 9_000, Proof.OBSERVED))
        with store.write() as c:
            meters.close(c, "ls-1", number * 10 + 10, 9_000, Proof.OBSERVED)
    with store.write() as c:
        meters.open(c, a_meter(lease_id="ls-0"))
        meters.close(c, "ls-0", 5_000, 9_000, Proof.OBSERVED)
    with store.read() as c:
        found = [(interval.lease_id, interval.sequence, interval.start_us) for interval in meters.intervals(c)]
    assert found == [("ls-0", 1, 1_000), ("ls-1", 1, 0), ("ls-1", 2, 10), ("ls-1", 3, 20), ("ls-1", 4, 30)]


def test_of_several_that_close_a_meter_at_once_one_writes_the_interval(lasting_url: str, a_meter: Make) -> None:
    stores = [Store.open(lasting_url) for _ in range(4)]
    with stores[0].write() as c:
        meters.open(c, a_meter())
    closed: list[Interval | None] = []
    ready = threading.Barrier(len(stores))

    def close(store: Store) -> None:
        ready.wait()
        with store.write() as c:
            closed.append(meters.close(c, "ls-1", 9_000, 9_000, Proof.OBSERVED))

    _run_all([lambda store=store: close(store) for store in stores])
    with stores[0].read() as c:
        assert meters.intervals(c) == [interval for interval in closed if interval is not None]
    assert closed.count(None) == 3
    for store in stores:
        store.close()


def test_intervals_are_found_by_tenant_workload_and_span_and_in_pages(store: Store, a_meter: Make) -> None:
    spans = {"ls-1": (0, 10), "ls-2": (10, 20), "ls-3": (15, 25), "ls-4": (20, 20)}
    with store.write() as c:
        for lease_id, (start, end) in spans.items():
            tenant = "t-2" if lease_id == "ls-2" else "t-1"
            workload = "wl-9" if lease_id == "ls-3" else "wl-1"
            meters.open(c, a_meter(lease_id=lease_id, tenant_id=tenant, workload_id=workload, start_us=start))
            meters.close(c, lease_id, end, 9_000, Proof.OBSERVED)

        def ids(**asked: object) -> list[str]:
            return [interval.lease_id for interval in meters.intervals(c, **asked)]  # type: ignore[arg-type]

        assert ids() == ["ls-1", "ls-2", "ls-3", "ls-4"]
        assert ids(tenant_id="t-1") == ["ls-1", "ls-3", "ls-4"]
        assert ids(tenant_id="t-1", workload_id="wl-1") == ["ls-1", "ls-4"]
        assert ids(from_us=0, until_us=10) == ["ls-1"]
        assert ids(from_us=10, until_us=20) == ["ls-2", "ls-3"]
        assert ids(from_us=20, until_us=30) == ["ls-3", "ls-4"]  # an empty one belongs to one span, too
        assert ids(limit=2) == ["ls-1", "ls-2"]
        assert ids(after=("ls-2", 1), limit=1) == ["ls-3"]
        assert ids(after=("ls-2", 0)) == ["ls-2", "ls-3", "ls-4"]


@pytest.mark.parametrize("table", ["intervals", "events"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET tenant_id = 'thief'", "DELETE FROM {}"])
def test_what_was_metered_and_told_cannot_be_changed(store: Store, a_meter: Make, table: str, statement: str) -> None:
    with store.write() as c:
        meters.open(c, a_meter())
        interval = meters.close(c, "ls-1", 9_000, 9_000, Proof.OBSERVED)
        events.append(c, [Event("lease.granted", "ls-1", 1, "t-1")])
    with pytest.raises(exc.IntegrityError, match="immutable"), store.write() as c:
        c.exec_driver_sql(statement.format(table))
    with store.read() as c:
        assert meters.intervals(c) == [interval]
        assert [told.tenant_id for told in events.after(c, 0, None, 9)] == ["t-1"]


def test_events_come_back_as_they_were_told_with_a_number_each(store: Store) -> None:
    told = [
        Event("workload.running", "wl-1", 2**62, "t-1", "ann", {"note": "显卡\x00", "ports": [1, None], "n": 2**60}),
        Event("card.missing", "GPU-a", 2),
    ]
    with store.write() as c:
        assert events.last(c) == 0
        assert events.append(c, told) == 2
        assert events.append(c, []) == 2
        assert events.append(c, told[:1]) == 3
    with store.read() as c:
        assert events.last(c) == 3
        numbered = [replace(event, sequence=n) for n, event in enumerate([*told, told[0]], 1)]
        assert events.after(c, 0, None, 9) == numbered
        assert events.after(c, 1, None, 1) == numbered[1:2]
        assert events.after(c, 1, "t-1", 9) == numbered[2:]
        assert events.after(c, 0, "t-2", 9) == []


def test_a_transaction_that_failed_leaves_no_gap_between_events(store: Store) -> None:
    event = Event("card.missing", "GPU-a", 2)
    with store.write() as c:
        events.append(c, [event])
    with pytest.raises(Interruption):
        _undone(store, lambda c: events.append(c, [event] * 5))
    with store.write() as c:
        assert events.append(c, [event]) == 2


def test_a_reader_who_asks_for_more_never_misses_an_event_of_concurrent_writers(lasting_url: str) -> None:
    writers, commits, each = 4, 15, 3
    stores = [Store.open(lasting_url) for _ in range(writers + 1)]
    total = writers * commits * each
    seen: list[Event] = []

    def write(store: Store, name: str) -> None:
        for number in range(commits):
            with store.write() as c:
                events.append(c, [Event("told", f"{name}-{number}", 1)] * each)

    def follow() -> None:
        while len(seen) < total:
            with stores[-1].read() as c:
                seen.extend(events.after(c, len(seen), None, 7))

    _run_all([*(lambda n=n: write(stores[n], f"writer-{n}") for n in range(writers)), follow])
    assert [event.sequence for event in seen] == list(range(1, total + 1))
    for n in range(writers):
        mine = [event.subject for event in seen if event.subject.startswith(f"writer-{n}-")]
        assert mine == [f"writer-{n}-{number}" for number in range(commits) for _ in range(each)]
    for store in stores:
        store.close()


class Interruption(Exception):
    """What stops a transaction half way."""


def _undone(store: Store, change: Callable[[Connection], object]) -> None:
    with store.write() as c:
        change(c)
        raise Interruption


def _run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
