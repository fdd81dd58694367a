"""What the loops have read of the store stays true, however much is written meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish
from gpuyard.control.reading import Reading, read
from gpuyard.model.workloads import Desired, WorkloadKind
from gpuyard.store import meters, workloads
from gpuyard.store.touched import Kind, TouchLog, touch
from hand_driven_yard import HandYard


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[HandYard]:
    yard = HandYard(tmp_path, "8xRTX4090")
    yield yard
    yard.yard.store.close()


def job(hand: HandYard, name: str) -> str:
    wish = Launch(WorkloadKind.JOB, SliceWish(offer="rtx4090-half"), command=("x",), name=name)
    return hand.launch(hand.tenant("alice"), wish).id


def test_a_reading_of_what_was_written_since_is_a_reading_of_everything(hand: HandYard) -> None:
    first = read(hand.yard)
    job(hand, "one")
    second = read(hand.yard, first)
    assert [each.name for each in second.workloads.values()] == ["one"]
    hand.settle()  # which compares after each pass
    with hand.yard.store.write() as c:
        workloads.set_desired(c, next(iter(second.workloads)), Desired.REMOVE, hand.clock.now_us())
    hand.settle()
    last = read(hand.yard, second)
    assert (last.workloads, last.open, last.meters) == ({}, {}, {})
    assert first.workloads == {}  # what was read is never changed


def test_what_was_not_written_is_the_same_object_as_before(hand: HandYard) -> None:
    job(hand, "one")
    hand.settle()
    before = read(hand.yard)
    job(hand, "two")
    after = read(hand.yard, before)
    assert len(after.open) == 2
    assert all(after.open[lease_id] is lease for lease_id, lease in before.open.items())
    assert after.meters is before.meters


def test_workloads_stay_in_the_order_of_their_ids_when_the_clock_goes_back(hand: HandYard) -> None:
    job(hand, "later")
    before = read(hand.yard)
    hand.clock.at_us -= 3_600_000_000
    job(hand, "earlier")
    after = read(hand.yard, before)
    assert [each.name for each in after.workloads.values()] == ["earlier", "later"]
    assert list(after.open) == sorted(after.open)


def test_a_write_that_is_undone_changes_no_reading(hand: HandYard) -> None:
    workload_id = job(hand, "one")
    before = read(hand.yard)
    with suppress(InterruptedError), hand.yard.store.write() as c:
        workloads.set_desired(c, workload_id, Desired.STOP, hand.clock.now_us())
        raise InterruptedError
    assert read(hand.yard, before).workloads == before.workloads


def test_every_meter_is_read_again_once_their_proofs_moved_on(hand: HandYard) -> None:
    job(hand, "one")
    hand.settle()
    before = read(hand.yard)
    (lease_id,) = before.meters
    moved = before.meters[lease_id].proven_us + 1
    with hand.yard.store.write() as c:
        meters.advance(c, [(lease_id, moved, before.meters[lease_id].proven_ns + 1000)])
    assert read(hand.yard, before).meters[lease_id].proven_us == moved


def test_readings_beside_writers_are_each_consistent_and_the_last_one_is_whole(hand: HandYard) -> None:
    """One transaction stops two workloads at once: no reading may see one of them alone."""
    pair = [job(hand, "left"), job(hand, "right")]
    done = threading.Event()

    def flip() -> None:
        for number in range(200):
            with hand.yard.store.write() as c:
                for workload_id in pair:
                    wanted = Desired.STOP if number % 2 else Desired.RUN
                    workloads.set_desired(c, workload_id, wanted, hand.clock.now_us() + number)
        done.set()

    writer = threading.Thread(target=flip)
    writer.start()
    kept: Reading | None = None
    seen = 0
    while not done.is_set():
        kept = read(hand.yard, kept)
        left, right = (kept.workloads[workload_id] for workload_id in pair)
        assert (left.desired, left.updated_us) == (right.desired, right.updated_us)
        seen += 1
    writer.join()
    assert seen > 1
    assert read(hand.yard, kept).workloads == read(hand.yard).workloads


def test_a_log_that_has_forgotten_says_so_and_one_that_knows_tells_no_more_than_was_touched() -> None:
    log = TouchLog()
    log.publish([(Kind.LEASE, "a")])
    here = log.position
    log.publish([(Kind.LEASE, "b"), (Kind.METER, "a")])
    assert sorted(log.since(here) or ()) == [(Kind.LEASE, "b"), (Kind.METER, "a")]
    assert log.since(log.position) == []
    log.publish((Kind.LEASE, f"{number}") for number in range(5000))
    assert log.since(here) is None
    assert log.since(log.position) == []


def test_a_row_is_touched_in_a_transaction_that_may_write_and_nowhere_else(hand: HandYard) -> None:
    with hand.yard.store.read() as c, pytest.raises(KeyError):
        touch(c, Kind.LEASE, "a")
