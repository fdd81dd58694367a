"""A yard is killed with -9 at every place of a scripted day where it writes or acts; what is left must come out the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from crash_day import left_at, run
from gpuyard.billing.ledger import faults
from gpuyard.control.money import Bill, make_bill
from gpuyard.control.reconciling import reconcile
from gpuyard.control.settling import settle_due, settle_running
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.store import commitments, events, leases, ledger, meters, workloads
from hand_driven_yard import HandYard
from market_prices import at_market
from taken_back import CREDITS, given_back_nano

SHARES = 8
EVERY = int(os.environ.get("GPUYARD_CRASH_EVERY", "2"))  # 1 tries every place, in twice the time
HOUR_US = 3_600_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crash_day"])
    return context


@pytest.fixture(scope="module")
def places(processes: multiprocessing.context.ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many places a day has, if nothing dies."""
    root = tmp_path_factory.mktemp("whole")
    assert outcome(processes, root) == 0
    return json.loads((root / "places.json").read_text())


def outcome(processes: multiprocessing.context.ForkServerContext, root: Path, *arguments: object) -> int | None:
    """How a process of the day ended."""
    child = processes.Process(target=run, args=(str(root), *arguments))
    child.start()
    child.join(120)
    return child.exitcode


def test_at_least_two_hundred_places_of_the_day_are_tried(places: int) -> None:
    assert places // EVERY >= 200


@pytest.mark.parametrize("share", range(SHARES))
def test_wherever_the_yard_dies_the_day_ends_the_same(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, places: int, share: int
) -> None:
    """One process lives through the day and keeps, at each place, the files that its death there would leave."""
    mine = range(1 + share * EVERY, places + 1, SHARES * EVERY)
    root = tmp_path / "day"
    root.mkdir()
    assert outcome(processes, root, None, frozenset(mine)) == 0
    for place in mine:
        left = left_at(root, place)
        assert outcome(processes, left) == 0, f"dead at place {place}, the yard could not go on"
        check(left, f"dead at place {place} of {places}")
        shutil.rmtree(left)


def test_a_yard_that_is_really_killed_leaves_no_more_than_its_files(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, places: int
) -> None:
    """The test above copies; here the process dies, at every sixteenth of its places."""
    for place in range(1 + EVERY, places + 1, 16 * EVERY):
        root = tmp_path / str(place)
        root.mkdir()
        assert outcome(processes, root, place) == -signal.SIGKILL, f"place {place} of {places} was not reached"
        assert outcome(processes, root) == 0, f"killed at place {place}, the yard could not go on"
        check(root, f"killed at place {place} of {places}")


@pytest.mark.parametrize("second", [1, 7, 40, 90])
def test_a_yard_that_is_killed_again_and_again_still_ends_the_day(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, second: int
) -> None:
    """Every process dies `second` places after it began, for as long as it gets anywhere; then one lives."""
    for _ in range(400 // second if second < 7 else 40):
        ended = outcome(processes, tmp_path, 20 + second)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert outcome(processes, tmp_path) == 0
    check(tmp_path, f"killed every {20 + second} places")


def check(root: Path, told: str) -> None:
    """What holds at the end of every day, whatever happened in it."""
    hand = HandYard(root, kept=True)
    store = hand.yard.store
    with store.read() as c:
        made = [workloads.get(c, interval.workload_id) for interval in meters.intervals(c)]
        all_leases = [
            lease for w in {w.id for w in made if w} for lease in leases.of_workload(c, w, include_ended=True)
        ]
        intervals = meters.intervals(c)
        bill = make_bill(c, None)
        rounds = commitments.spot_prices(c)
        held = leases.usage(c)
        counting = meters.open_meters(c)
        told_events = events.after(c, 0, None, 10_000)
        begun = [event for event in told_events if event.kind == "workload.pending" and event.actor == "tester"]
    check_ledger(hand, bill.total_nano, told)
    store.close()
    assert {w.name: str(w.state) for w in made if w} == dict.fromkeys(
        ["train", "box", "serve", "cheap", "urgent"], "removed"
    ), told
    assert len({w.id for w in made if w}) == 5, f"{told}: a launch was made twice"
    assert len(begun) == 6, f"{told}: five launches and one start were told as {len(begun)}"
    notices = [event for event in told_events if event.kind == "lease.reclaim_notice"]
    assert len(notices) == 2, f"{told}: the gang of two was told to go {len(notices)} times"
    assert all(lease.state is LeaseState.ENDED for lease in all_leases), told
    assert held == {}, told
    assert counting == {}, told
    assert hand.runtime.observe() == {}, told
    assert hand.runtime.disks() == frozenset(), told
    started = hand.runtime.started
    assert len(started) == len(set(started)) == 14, f"{told}: fourteen units were to run, and {started} did"
    on_spot = {lease.id for lease in all_leases if lease.option is PurchaseOption.SPOT}
    priced = at_market(intervals, rounds, on_spot)
    below = {each.price_per_hour_nano for each in priced} - {each.price_per_hour_nano for each in intervals}
    assert below, f"{told}: nothing was priced by the market"
    check_time(hand, intervals, told)
    check_money(priced, bill, given_back_nano(told_events, priced), told)


def check_ledger(hand: HandYard, bill_nano: int, told: str) -> None:
    """Everything is posted once, nothing is held, the top-up counts once, and three clocks agree."""
    now_us = hand.clock.now_us()
    settle_due(hand.yard, now_us)
    settle_running(hand.yard, now_us)
    with hand.yard.store.read() as c:
        balances = ledger.balances(c)
        assert faults(ledger.every(c), balances) == [], told
        posted = sum(balance for name, balance in balances.items() if name.startswith(("revenue:", "credits:")))
        assert posted == bill_nano, f"{told}: {posted} was posted of a bill of {bill_nano}"
        assert ledger.wallet(c, "tn-alice", "USD") == (6 * 10**9 - bill_nano, 0), told
    done = reconcile(hand.yard, now_us, everything=True)
    assert (done.faults, done.found, done.without_node_record) == ((), (), 0), told


def check_time(hand: HandYard, intervals: list, told: str) -> None:
    by_lease: dict[str, list] = {}
    for interval in intervals:
        by_lease.setdefault(interval.lease_id, []).append(interval)
    for lease, mine in by_lease.items():
        assert [i.sequence for i in mine] == list(range(1, len(mine) + 1)), told
        for before, after in pairwise(mine):
            assert before.end_us <= after.start_us, f"{told}: {lease} was counted twice"
        ran_us = sum(us for name, us in hand.runtime.ran_us.items() if name.rpartition("-")[0] == lease)
        counted_us = sum(i.duration_us for i in mine if i.state is LeaseState.ACTIVE)
        assert counted_us == ran_us, f"{told}: {lease} ran for {ran_us} us and pays for {counted_us} us"


def check_money(intervals: list, bill: Bill, given_back: Fraction, told: str) -> None:
    exact = sum(Fraction(i.duration_us * i.price_per_hour_nano, HOUR_US) for i in intervals)
    lines = [line for line in bill.lines if line.what not in ("minimum", *CREDITS)]
    assert abs(sum(line.amount_nano for line in lines) - exact) <= 500 * len(lines), told
    returned = [line for line in bill.lines if line.what in CREDITS]
    assert abs(sum(line.amount_nano for line in returned) + given_back) <= 500 * len(returned), told
    assert given_back > 0, f"{told}: nothing was taken back on spot, so nothing was tried of what that gives back"
