"""Gangs start and fail together; spot leases are told to go, go in time, wait again and cost nobody a try."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.control import commands
from gpuyard.control.launching import Launch
from gpuyard.control.money import make_bill
from gpuyard.control.offering import SliceWish
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.tenants import Share
from gpuyard.model.workloads import RestartPolicy, Workload, WorkloadKind
from gpuyard.store import commitments, events, leases, placements, shares
from hand_driven_yard import HandYard

SECOND = 1_000_000
FULL = SliceWish(offer="rtx4090-full")


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    return HandYard(tmp_path, "4xRTX4090")


def job(hand: HandYard, name: str, slices: SliceWish = FULL, **more: object) -> Workload:
    values: dict[str, object] = {"command": ("train",), **more}
    return hand.launch(hand.tenant("alice"), Launch(WorkloadKind.JOB, slices, name=name, **values))  # type: ignore[arg-type]


def spot(hand: HandYard, name: str, slices: SliceWish = FULL, **more: object) -> Workload:
    return job(hand, name, slices, option=PurchaseOption.SPOT, checkpoint_command=("save",), **more)


def kinds(hand: HandYard, kind: str) -> list[str]:
    with hand.yard.store.read() as c:
        return [event.subject for event in events.after(c, 0, None, 1000) if event.kind == kind]


def wait(hand: HandYard, seconds: int, step: int = 5) -> None:
    for _ in range(0, seconds, step):
        hand.clock.advance(step * SECOND)
        hand.settle()


def test_a_gang_waits_whole_and_starts_whole(hand: HandYard) -> None:
    first = job(hand, "first", SliceWish(offer="rtx4090-full", count=2))
    hand.settle()
    gang = job(hand, "gang", replicas=3)
    hand.settle()
    assert len(hand.runtime.live()) == 1
    assert hand.now(gang).state is WorkloadState.PENDING
    assert hand.now(gang).reason_params["shortfalls"][0] == {"node": "--", "lacks": "gang", "members": 3, "fit": 2}
    commands.stop(hand.yard, first.id, "tester")
    hand.settle()
    assert hand.now(gang).state is WorkloadState.RUNNING
    assert len(hand.runtime.live()) == 3


def test_a_gang_fails_as_a_whole(hand: HandYard) -> None:
    gang = job(hand, "gang", replicas=3)
    hand.settle()
    names = sorted(hand.runtime.live())
    hand.runtime.finish(names[0], 0)
    hand.settle()
    assert hand.now(gang).state is WorkloadState.RUNNING, "one that is done does not end the others"
    hand.runtime.finish(names[1], 3)
    hand.settle()
    ended = hand.now(gang)
    assert ended.state is WorkloadState.FAILED
    assert hand.runtime.live() == {}
    assert hand.lease(gang).reason == "gang_broken"


def test_a_replica_that_may_restart_does_not_end_its_gang(hand: HandYard) -> None:
    gang = job(hand, "gang", replicas=2, restart=RestartPolicy.ON_FAILURE, max_restarts=1)
    hand.settle()
    hand.runtime.crash(sorted(hand.runtime.live())[0])
    wait(hand, 10)
    assert hand.now(gang).state is WorkloadState.RUNNING
    assert len(hand.runtime.live()) == 2


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed all the time"])
def test_a_spot_lease_gets_notice_goes_in_time_and_waits_again(hand: HandYard, killed: bool) -> None:
    cheap = [spot(hand, f"cheap{n}") for n in range(4)]
    hand.settle()
    wait(hand, 700, 100)
    urgent = job(hand, "urgent")
    hand.settle()
    (told,) = kinds(hand, "lease.reclaim_notice")
    (victim,) = [workload for workload in cheap if hand.lease(workload).id == told]
    assert len(hand.runtime.live()) == 4, "the notice alone ends nothing"
    assert hand.now(urgent).state is WorkloadState.PENDING
    for _ in range(30):
        if killed:
            hand.kill()
        wait(hand, 5)
    after = hand.lease(victim)
    assert (after.state, after.reason, after.restarts, after.run) == (LeaseState.REQUESTED, "reclaimed", 0, 1)
    assert hand.now(victim).state is WorkloadState.PENDING
    assert hand.now(urgent).state is WorkloadState.RUNNING
    assert kinds(hand, "lease.reclaim_notice") == [told]
    commands.stop(hand.yard, urgent.id, "tester")
    hand.settle()
    again = hand.lease(victim)
    assert (again.state, again.attempt, again.restarts) == (LeaseState.ACTIVE, 2, 0)
    with hand.yard.store.read() as c:
        assert placements.of(c, [told])[told].reclaims == 1
        lines = [line for line in make_bill(c, None).lines if line.lease_id == told]
        published = {price for _, price in commitments.spot_prices(c)["rtx4090-full"]}
    assert {line.price_per_hour_nano for line in lines} <= published, "spot pays the price of spot"
    assert {54_000_000} < published <= set(range(54_000_000, 240_000_001)), "from what its power costs up to the book's"


def test_the_checkpoint_runs_within_the_notice(hand: HandYard) -> None:
    asked: list[tuple[int, int, tuple[str, ...]]] = []
    stop = hand.runtime.stop

    def seen(name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        asked.append((hand.clock.now_us(), grace_us, checkpoint_command))
        stop(name, grace_us, checkpoint_command)

    hand.runtime.stop = seen  # type: ignore[method-assign]
    for n in range(4):
        spot(hand, f"cheap{n}")
    hand.settle()
    wait(hand, 700, 100)
    told_us = hand.clock.now_us()
    job(hand, "urgent")
    hand.settle()
    wait(hand, 150)
    ((at_us, grace_us, command),) = asked
    assert command == ("save",)
    assert grace_us == 60 * SECOND
    assert told_us + 60 * SECOND <= at_us <= told_us + 65 * SECOND


def test_a_gang_of_spot_goes_as_a_whole_and_comes_back_as_a_whole(hand: HandYard) -> None:
    gang = spot(hand, "gang", replicas=3)
    spot(hand, "single")
    hand.settle()
    wait(hand, 700, 100)
    urgent = job(hand, "urgent", SliceWish(offer="rtx4090-full", count=2))
    hand.settle()
    assert len(kinds(hand, "lease.reclaim_notice")) in (3, 4)
    wait(hand, 150)
    assert hand.now(urgent).state is WorkloadState.RUNNING
    with hand.yard.store.read() as c:
        states = {found.state for found in leases.of_workload(c, gang.id)}
    assert states == {LeaseState.REQUESTED}
    commands.stop(hand.yard, urgent.id, "tester")
    hand.settle()
    assert hand.now(gang).state is WorkloadState.RUNNING


def test_a_notice_is_taken_back_where_it_is_not_needed_any_more(hand: HandYard) -> None:
    for n in range(4):
        spot(hand, f"cheap{n}")
    hand.settle()
    wait(hand, 700, 100)
    urgent = job(hand, "urgent")
    hand.settle()
    assert len(kinds(hand, "lease.reclaim_notice")) == 1
    commands.remove(hand.yard, urgent.id, "tester")
    hand.settle()
    assert len(kinds(hand, "lease.reclaim_withdrawn")) == 1
    wait(hand, 150)
    assert len(hand.runtime.live()) == 4


def test_what_has_just_begun_is_left_alone(hand: HandYard) -> None:
    for n in range(4):
        spot(hand, f"cheap{n}")
    hand.settle()
    wait(hand, 100)
    job(hand, "urgent")
    hand.settle()
    wait(hand, 200)
    assert kinds(hand, "lease.reclaim_notice") == []
    wait(hand, 600, 20)
    assert len(kinds(hand, "lease.reclaim_notice")) == 1


def test_spot_leaves_room_for_what_others_were_seen_to_want(hand: HandYard) -> None:
    """Last week somebody used three cards at this hour: this week spot gets one."""
    busy = [job(hand, f"busy{n}") for n in range(3)]
    hand.settle()
    for workload in busy:
        commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    hand.clock.advance(7 * 24 * 3600 * SECOND)
    cheap = [spot(hand, f"cheap{n}") for n in range(3)]
    hand.settle()
    assert [hand.now(workload).state for workload in cheap].count(WorkloadState.RUNNING) == 1
    waiting = next(hand.now(w) for w in cheap if hand.now(w).state is WorkloadState.PENDING)
    assert waiting.reason_params["shortfalls"][0]["lacks"] == "spot_room"


def test_quotas_and_tiers_hold_in_the_yard(hand: HandYard) -> None:
    alice, bob = hand.tenant("alice"), hand.tenant("bob")
    with hand.yard.store.write() as c:
        shares.put(c, alice.id, Share(quota_compute_ppm=1_000_000, may_borrow=False))
        shares.put(c, bob.id, Share(max_priority=5))
    first, second = job(hand, "first"), job(hand, "second")
    hand.settle()
    states = [hand.now(workload).state for workload in (first, second)]
    assert sorted(states) == [WorkloadState.PENDING, WorkloadState.RUNNING]
    waits = next(w for w in (first, second) if hand.now(w).state is WorkloadState.PENDING)
    assert hand.now(waits).reason_params["shortfalls"][0]["lacks"] == "quota"
    hand.launch(bob, Launch(WorkloadKind.JOB, FULL, command=("x",), priority=5))
    with pytest.raises(YardError, match="priority_too_high"):
        hand.launch(bob, Launch(WorkloadKind.JOB, FULL, command=("x",), priority=6))
    hand.settle()
    assert len(hand.runtime.live()) == 2


def test_a_unit_is_told_its_replicas_and_the_processors_near_its_cards(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "2xH100")
    hand.launch(
        hand.tenant("alice"), Launch(WorkloadKind.JOB, SliceWish(offer="h100-full"), command=("x",), replicas=2)
    )
    hand.settle()
    told = [unit.environment for unit in hand.runtime.live().values()]
    assert {environment["GPUYARD_REPLICAS"] for environment in told} == {"2"}
    assert sorted(environment["GPUYARD_CPUS"] for environment in told) == ["0-7", "8-15"]


def test_what_is_stopped_while_it_waits_costs_nothing_and_spoils_no_bill(hand: HandYard) -> None:
    runs = job(hand, "runs", SliceWish(offer="rtx4090-full", count=4))
    hand.settle()
    waits = hand.launch(hand.tenant("alice"), Launch(WorkloadKind.INSTANCE, FULL, command=("sleep", "9"), name="waits"))
    hand.settle()
    commands.stop(hand.yard, waits.id, "tester")
    wait(hand, 60)
    commands.start(hand.yard, waits.id, "tester")
    wait(hand, 60)
    with hand.yard.store.read() as c:
        bill = make_bill(c, None)
    assert {line.workload_id for line in bill.lines} == {runs.id}
