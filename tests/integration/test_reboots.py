"""A reboot keeps lease, slices, disk and run, is billed through to the microsecond, and is no failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.control import commands
from gpuyard.control.launching import Launch
from gpuyard.control.money import make_bill
from gpuyard.control.offering import SliceWish
from gpuyard.control.reconciling import reconcile
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Interval, Lease, PurchaseOption
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.workloads import RestartPolicy, Workload, WorkloadKind
from gpuyard.store import events, leases, meters
from hand_driven_yard import HandYard

SECOND = 1_000_000
FULL = SliceWish(offer="rtx4090-full")


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    return HandYard(tmp_path, "4xRTX4090")


def box(hand: HandYard, **more: object) -> Workload:
    values: dict[str, object] = {"kind": WorkloadKind.INSTANCE, "slices": FULL, "name": "box", **more}
    made = hand.launch(hand.tenant("alice"), Launch(**values))  # type: ignore[arg-type]
    hand.settle()
    return made


def intervals(hand: HandYard) -> list[Interval]:
    with hand.yard.store.read() as c:
        return meters.intervals(c)


def reboot(hand: HandYard, workload: Workload) -> None:
    commands.reboot(hand.yard, workload.id, "tester")


def pass_until(hand: HandYard, workload: Workload, state: LeaseState) -> Lease:
    for _ in range(10):
        hand.loops.pass_once()
        found = hand.lease(workload)
        if found.state is state:
            return found
    raise AssertionError(f"never {state}")


def test_a_reboot_gives_a_new_unit_on_the_same_lease_slices_and_disk(hand: HandYard) -> None:
    workload = box(hand)
    before = hand.lease(workload)
    hand.clock.advance(30 * SECOND)
    reboot(hand, workload)
    hand.settle()
    after = hand.lease(workload)
    assert (after.id, after.slices, after.disk_name, after.run) == (
        before.id, before.slices, before.disk_name, before.run,
    )  # fmt: skip
    assert (after.state, after.attempt, after.restarts, after.reason) == (LeaseState.ACTIVE, 2, 0, None)
    assert set(hand.runtime.live()) == {after.unit_name}
    assert hand.now(workload).state is WorkloadState.RUNNING


def test_a_reboot_is_billed_through_without_a_gap_and_without_a_second_minimum(hand: HandYard) -> None:
    workload = box(hand)
    began_us = hand.clock.now_us()
    hand.clock.advance(20 * SECOND)
    reboot(hand, workload)
    between = pass_until(hand, workload, LeaseState.GRANTED)
    assert between.reboots
    hand.clock.advance(7 * SECOND)  # what the machine takes to start it
    hand.settle()
    hand.clock.advance(10 * SECOND)
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    found = [i for i in intervals(hand) if i.runs]
    assert found[0].start_us == began_us
    assert [a.end_us for a in found[:-1]] == [b.start_us for b in found[1:]]
    ran_us = found[-1].end_us - began_us
    assert ran_us == 37 * SECOND
    with hand.yard.store.read() as c:
        lines = [line for line in make_bill(c, None).lines if line.what != "stopped"]
    assert {line.what: line.duration_us for line in lines} == {"active": ran_us, "minimum": 60 * SECOND - ran_us}


def test_node_events_and_bill_agree_about_a_reboot(hand: HandYard) -> None:
    workload = box(hand)
    for _ in range(3):
        hand.clock.advance(70 * SECOND)
        reboot(hand, workload)
        pass_until(hand, workload, LeaseState.GRANTED)
        hand.clock.advance(5 * SECOND)
        hand.settle()
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    told = reconcile(hand.yard, hand.clock.now_us(), everything=True)
    assert told.found == ()
    assert told.scheduler_us == told.node_us == told.billed_us == 3 * 70 * SECOND


def test_asking_twice_reboots_once(hand: HandYard) -> None:
    workload = box(hand)
    reboot(hand, workload)
    reboot(hand, workload)
    pass_until(hand, workload, LeaseState.GRANTED)
    reboot(hand, workload)
    hand.settle()
    assert hand.lease(workload).attempt == 2


@pytest.mark.parametrize("times", [1, 5])
def test_reboots_use_up_no_restarts(hand: HandYard, times: int) -> None:
    workload = box(hand, kind=WorkloadKind.JOB, command=("train",), restart=RestartPolicy.ON_FAILURE, max_restarts=1)
    for _ in range(times):
        reboot(hand, workload)
        hand.settle()
    hand.runtime.crash(hand.lease(workload).unit_name)
    hand.settle()
    hand.clock.advance(5 * SECOND)
    hand.settle()
    assert hand.now(workload).state is WorkloadState.RUNNING, "its one restart was still there"


def test_a_unit_that_ends_by_itself_while_it_is_to_be_rebooted_comes_back(hand: HandYard) -> None:
    workload = box(hand)
    reboot(hand, workload)
    hand.runtime.crash(hand.lease(workload).unit_name)
    hand.settle()
    assert (hand.lease(workload).state, hand.lease(workload).restarts) == (LeaseState.ACTIVE, 0)


def test_a_reboot_that_comes_to_nothing_costs_nothing_after_the_old_unit(hand: HandYard) -> None:
    workload = box(hand)
    hand.clock.advance(90 * SECOND)
    reboot(hand, workload)
    hand.runtime.refusing = YardError("engine_failed", reason="broken")
    pass_until(hand, workload, LeaseState.GRANTED)
    for _ in range(20):
        hand.clock.advance(10 * SECOND)
        hand.loops.pass_once()
    assert hand.lease(workload).state is LeaseState.GRANTED
    assert not hand.lease(workload).reboots
    assert hand.now(workload).reason == "waiting_for_engine"
    assert sum(i.duration_us for i in intervals(hand) if i.runs) == 90 * SECOND
    hand.runtime.refusing = None
    hand.clock.advance(10 * SECOND)
    hand.settle()
    assert hand.now(workload).state is WorkloadState.RUNNING


@pytest.mark.parametrize("asked", [commands.stop, commands.remove], ids=["stop", "remove"])
def test_what_is_stopped_or_removed_between_two_units_ends_as_the_old_one_did(
    hand: HandYard, asked: commands.Command
) -> None:
    workload = box(hand)
    hand.clock.advance(90 * SECOND)
    reboot(hand, workload)
    hand.runtime.refusing = YardError("engine_failed", reason="broken")
    pass_until(hand, workload, LeaseState.GRANTED)
    hand.clock.advance(20 * SECOND)
    asked(hand.yard, workload.id, "tester")
    hand.settle()
    assert hand.now(workload).state in (WorkloadState.STOPPED, WorkloadState.REMOVED)
    assert sum(i.duration_us for i in intervals(hand) if i.runs) == 90 * SECOND
    with hand.yard.store.read() as c:
        assert leases.usage(c) == {}


def test_a_machine_that_goes_down_during_a_reboot_is_not_billed_for(hand: HandYard) -> None:
    workload = box(hand)
    hand.clock.advance(90 * SECOND)
    reboot(hand, workload)
    pass_until(hand, workload, LeaseState.GRANTED)
    hand.clock.reboot(3600 * SECOND)
    hand.kill()
    hand.settle()
    assert hand.now(workload).state is WorkloadState.RUNNING
    assert sum(i.duration_us for i in intervals(hand) if i.runs) <= 90 * SECOND


def test_a_spot_lease_that_is_told_to_go_while_it_reboots_waits_again(hand: HandYard) -> None:
    workload = box(hand, slices=SliceWish(offer="rtx4090-full", count=4), option=PurchaseOption.SPOT)
    hand.clock.advance(700 * SECOND)
    urgent = hand.launch(hand.tenant("bob"), Launch(WorkloadKind.INSTANCE, FULL, name="urgent"))
    hand.loops.pass_once()
    reboot(hand, workload)
    for _ in range(40):
        hand.clock.advance(5 * SECOND)
        hand.settle()
    assert hand.now(urgent).state is WorkloadState.RUNNING
    assert hand.lease(workload).state is LeaseState.REQUESTED
    with hand.yard.store.read() as c:
        assert all(line.amount_nano >= 0 for line in make_bill(c, None).lines if line.what == "active")


def test_replicas_of_a_gang_and_of_a_service_are_all_rebooted(hand: HandYard) -> None:
    gang = box(hand, kind=WorkloadKind.JOB, command=("train",), replicas=3)
    reboot(hand, gang)
    hand.settle()
    with hand.yard.store.read() as c:
        assert {x.attempt for x in leases.of_workload(c, gang.id)} == {2}
    assert hand.now(gang).state is WorkloadState.RUNNING


@pytest.mark.parametrize("how", ["stopped", "pending", "succeeded", "removed"])
def test_what_does_not_run_cannot_be_rebooted(hand: HandYard, how: str) -> None:
    if how == "pending":
        workload = hand.launch(hand.tenant("alice"), Launch(WorkloadKind.INSTANCE, FULL))
    else:
        workload = box(hand, kind=WorkloadKind.JOB, command=("train",))
        if how == "succeeded":
            hand.runtime.finish(hand.lease(workload).unit_name, 0)
        else:
            (commands.stop if how == "stopped" else commands.remove)(hand.yard, workload.id, "tester")
        hand.settle()
    with pytest.raises(YardError) as refused:
        reboot(hand, workload)
    assert refused.value.code == "wrong_state"


def test_several_change_together_or_not_at_all(hand: HandYard) -> None:
    runs, done = box(hand), box(hand, kind=WorkloadKind.JOB, command=("train",), name="done")
    hand.runtime.finish(hand.lease(done).unit_name, 0)
    hand.settle()
    with hand.yard.store.read() as c:
        told = events.last(c)
    for several in (commands.stop_each, commands.reboot_each):
        with pytest.raises(YardError) as refused:
            several(hand.yard, [runs.id, done.id], "tester")
        assert refused.value.code == "wrong_state"
    with hand.yard.store.read() as c:
        assert events.last(c) == told
    assert hand.now(runs).desired == "run"
    assert hand.lease(runs).reason is None
    commands.stop_each(hand.yard, [runs.id], "tester")
    hand.settle()
    with pytest.raises(YardError):
        commands.start_each(hand.yard, [runs.id, done.id], "tester")
    assert hand.now(runs).state is WorkloadState.STOPPED
