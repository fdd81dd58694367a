"""Running leases are moved for what fits nowhere and at night, in two phases, at nobody's cost but the yard's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gpuyard.api.why_view import why_view
from gpuyard.catalog import cards
from gpuyard.control import commands
from gpuyard.control.explaining import why
from gpuyard.control.launching import Launch
from gpuyard.control.money import make_bill
from gpuyard.control.offering import SliceWish
from gpuyard.control.pool import pool_use
from gpuyard.model.errors import YardError
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.units import parse_window
from gpuyard.model.workloads import Workload, WorkloadKind
from gpuyard.scheduling.relocating import MovePolicy
from gpuyard.scheduling.windows import Window
from gpuyard.store import events, idle, leases, meters, moves, workloads
from gpuyard.store.database import Store
from hand_driven_yard import HandYard

SECOND = 1_000_000
HALF = SliceWish(offer="rtx4090-half")
FULL = SliceWish(offer="rtx4090-full")
ALWAYS = Window(0, 24 * 60)


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    """Two cards: a half is taken of each once `scattered` is done."""
    return HandYard(tmp_path, "2xRTX4090")


def job(hand: HandYard, name: str, slices: SliceWish = HALF, **more: object) -> Workload:
    values: dict[str, object] = {"command": ("train",), "checkpoint_command": ("save",), **more}
    return hand.launch(hand.tenant("alice"), Launch(WorkloadKind.JOB, slices, name=name, **values))  # type: ignore[arg-type]


def kinds(hand: HandYard) -> list[str]:
    with hand.yard.store.read() as c:
        return [e.kind for e in events.after(c, 0, None, 1000) if e.kind.startswith("lease.move")]


def scattered(hand: HandYard, **more: object) -> list[Workload]:
    """A half on each card: what stood beside them is gone."""
    all_four = [job(hand, f"half{n}", **more) for n in range(4)]
    hand.settle()
    by_card: dict[str, list[Workload]] = {}
    for workload in all_four:
        by_card.setdefault(hand.lease(workload).slices[0].card_uuid, []).append(workload)
    left = []
    for stays, goes in by_card.values():
        commands.remove(hand.yard, goes.id, "tester")
        left.append(stays)
    hand.settle()
    return left


def on_the_way(hand: HandYard) -> dict[str, moves.Move]:
    with hand.yard.store.read() as c:
        return moves.under_way(c)


def no_card_is_over(hand: HandYard) -> None:
    """Leases and moves together never hold more than there is."""
    with hand.yard.store.read() as c:
        used, kept = leases.usage(c), moves.held(moves.under_way(c).values())
    for card in hand.yard.roster.cards:
        of, also = used.get(card.uuid, (0, 0)), kept.get(card.uuid, (0, 0))
        assert of[0] + also[0] <= card.memory_bytes
        assert of[1] + also[1] <= 1_000_000


def test_a_lease_is_moved_for_one_that_fits_nowhere(hand: HandYard) -> None:
    stays = scattered(hand)
    hand.clock.advance(60 * SECOND)
    hand.settle()
    big = job(hand, "big", FULL)
    hand.settle(200, lambda: no_card_is_over(hand))
    assert hand.now(big).state is WorkloadState.RUNNING
    assert all(hand.now(workload).state is WorkloadState.RUNNING for workload in stays)
    assert kinds(hand) == ["lease.move_begun", "lease.moved"]
    (moved,) = [workload for workload in stays if hand.lease(workload).attempt == 2]
    after = hand.lease(moved)
    assert (after.state, after.restarts, after.run, after.reason) == (LeaseState.ACTIVE, 0, 1, None)
    units = hand.runtime.live()
    beside = next(hand.lease(workload) for workload in stays if workload is not moved)
    near = [units[each.unit_name].environment["GPUYARD_CPUS"] for each in (after, beside)]
    assert near[0] == near[1], "both are on one card now, with the same processors near it"
    assert on_the_way(hand) == {}


def test_what_may_not_be_moved_stays_and_the_other_waits(hand: HandYard) -> None:
    scattered(hand, checkpoint_command=())
    big = job(hand, "big", FULL)
    hand.settle()
    assert hand.now(big).state is WorkloadState.PENDING
    assert kinds(hand) == []


def test_no_more_is_moved_than_the_operator_allows(hand: HandYard) -> None:
    hand.yard.moves = MovePolicy(moves_an_hour=0)
    scattered(hand)
    big = job(hand, "big", FULL)
    hand.settle()
    assert hand.now(big).state is WorkloadState.PENDING
    hand.yard.moves = MovePolicy(at_once_of_tenant=0)
    hand.clock.advance(20 * SECOND)
    hand.settle()
    assert kinds(hand) == []


@pytest.mark.parametrize("passes", range(1, 9))
def test_a_yard_killed_after_any_pass_of_a_move_carries_it_through(hand: HandYard, passes: int) -> None:
    stays = scattered(hand)
    big = job(hand, "big", FULL)
    for _ in range(passes):
        hand.loops.pass_once()
        no_card_is_over(hand)
    hand.kill()
    hand.settle(200, lambda: no_card_is_over(hand))
    assert hand.now(big).state is WorkloadState.RUNNING
    assert all(hand.now(workload).state is WorkloadState.RUNNING for workload in stays)
    assert kinds(hand) == ["lease.move_begun", "lease.moved"]
    assert len(hand.runtime.live()) == 3
    assert len(hand.runtime.started) == len(set(hand.runtime.started))


def test_the_time_of_a_move_is_not_billed(hand: HandYard) -> None:
    stays = scattered(hand)
    hand.clock.advance(100 * SECOND)
    hand.settle()
    job(hand, "big", FULL)
    for _ in range(50):
        hand.loops.pass_once()
        if on_the_way(hand):
            break
    (move,) = on_the_way(hand).values()
    hand.runtime.refusing = YardError("engine_failed", reason="busy")
    for _ in range(6):
        hand.clock.advance(5 * SECOND)
        hand.loops.pass_once()
    hand.runtime.refusing = None
    hand.clock.advance(5 * SECOND)
    hand.settle(200)
    (moved,) = [workload for workload in stays if hand.lease(workload).id == move.lease_id]
    with hand.yard.store.read() as c:
        found = meters.of_leases(c, [move.lease_id])
        counting = meters.open_meters(c)[move.lease_id]
        bill = make_bill(c, None)
    ran = [interval for interval in found if interval.state is LeaseState.ACTIVE]
    assert [interval.end_us for interval in ran] == [move.begun_us], "not a second after it was asked to end"
    assert counting.start_us >= move.begun_us + 30 * SECOND
    assert all(interval.price_per_hour_nano == 0 for interval in found if interval.state is not LeaseState.ACTIVE)
    assert sum(line.what == "minimum" for line in bill.lines if line.workload_id == moved.id) == 0


def test_a_lease_that_cannot_start_at_its_target_goes_back(hand: HandYard) -> None:
    stays = scattered(hand)
    job(hand, "big", FULL)
    for _ in range(50):
        hand.loops.pass_once()
        if on_the_way(hand):
            break
    (move,) = on_the_way(hand).values()
    hand.runtime.refusing = YardError("engine_failed", reason="broken")
    for _ in range(20):
        hand.clock.advance(5 * SECOND)
        hand.loops.pass_once()
        no_card_is_over(hand)
    assert "lease.move_undone" not in kinds(hand)
    hand.runtime.refusing = None
    (workload,) = [w for w in stays if hand.lease(w).id == move.lease_id]
    back = hand.lease(workload)
    assert (back.state, back.slices[0].card_uuid) == (LeaseState.GRANTED, move.start.uuids[0])


def test_a_workload_that_is_stopped_on_its_way_leaves_nothing_held(hand: HandYard) -> None:
    stays = scattered(hand)
    big = job(hand, "big", FULL)
    for _ in range(50):
        hand.loops.pass_once()
        if on_the_way(hand):
            break
    for workload in stays:
        commands.remove(hand.yard, workload.id, "tester")
    hand.settle(200)
    assert on_the_way(hand) == {}
    assert hand.now(big).state is WorkloadState.RUNNING
    commands.remove(hand.yard, big.id, "tester")
    hand.settle(200)
    with hand.yard.store.read() as c:
        assert leases.usage(c) == {}


def test_a_target_that_is_lost_on_the_way_brings_the_lease_back(hand: HandYard) -> None:
    stays = scattered(hand)
    job(hand, "big", FULL)
    for _ in range(50):
        hand.loops.pass_once()
        if on_the_way(hand):
            break
    (move,) = on_the_way(hand).values()
    hand.probe.broken = set(move.end.uuids)
    hand.clock.advance(15 * SECOND)
    hand.settle(200)
    (workload,) = [w for w in stays if hand.lease(w).id == move.lease_id]
    assert hand.lease(workload).slices[0].card_uuid == move.start.uuids[0]
    assert on_the_way(hand) == {}


def test_at_night_nodes_are_emptied_and_outside_the_window_nothing_moves(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "1xRTX4090;1xRTX4090")
    stays = scattered(hand)
    hand.clock.advance(400 * SECOND)
    hand.settle()
    assert kinds(hand) == [], "no window was set"
    hand.yard.moves = MovePolicy(window=ALWAYS, low_load_ppm=500_000)
    hand.clock.advance(400 * SECOND)
    hand.settle()
    assert kinds(hand) == [], "half of the pool is leased: that is no low load"
    hand.yard.moves = MovePolicy(window=ALWAYS, low_load_ppm=600_000)
    hand.clock.advance(400 * SECOND)
    hand.settle(200, lambda: no_card_is_over(hand))
    assert kinds(hand) == ["lease.move_begun", "lease.moved"]
    assert len({hand.lease(workload).node for workload in stays}) == 1
    assert all(hand.now(workload).state is WorkloadState.RUNNING for workload in stays)


def told(hand: HandYard, workload: Workload, language: str = "en") -> str:
    with hand.yard.store.read() as c:
        found = workloads.get(c, workload.id)
    return "\n".join(why_view(why(hand.yard, found), language)["lines"])


def test_why_tells_of_a_move_before_and_after(hand: HandYard) -> None:
    stays = scattered(hand)
    big = job(hand, "big", FULL)
    for _ in range(50):
        hand.loops.pass_once()
        if on_the_way(hand):
            break
    (move,) = on_the_way(hand).values()
    (workload,) = [w for w in stays if hand.lease(w).id == move.lease_id]
    assert "on its way" in told(hand, workload)
    assert "迁往" in told(hand, workload, "zh")
    assert "Room is being made for it: 1" in told(hand, big)
    hand.settle(200)
    assert "was moved there" in told(hand, workload)
    assert "not billed" in told(hand, workload)
    assert "迁来" in told(hand, workload, "zh")


def test_the_pool_is_told_beside_its_target(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "1xRTX4090;1xRTX4090")
    scattered(hand)
    before = pool_use(hand.yard, hand.clock.now_us())
    assert (before.leased_ppm, before.target_ppm, before.empty_nodes, before.moves_done) == (500_000, 750_000, 0, 0)
    hand.yard.moves = MovePolicy(window=ALWAYS)
    hand.clock.advance(400 * SECOND)
    hand.settle(200)
    after = pool_use(hand.yard, hand.clock.now_us())
    assert (after.leased_ppm, after.empty_nodes, after.moves_done) == (500_000, 1, 1)
    assert after.saved_watts == cards.find("RTX4090").idle_watts


def test_windows_go_over_midnight() -> None:
    night = Window(*parse_window("22:30-06:00"))
    minute = 60 * SECOND
    assert [night.holds(at * minute) for at in (0, 359, 360, 1349, 1350)] == [True, True, False, False, True]
    assert parse_window("none") is None
    for wrong in ("1:00-2:00", "24:00-01:00", "01:00-01:00", "night", ""):
        with pytest.raises(YardError):
            parse_window(wrong)


class KilledError(Exception):
    """The yard died here."""


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("nth", range(1, 15))
def test_a_yard_killed_at_any_write_or_act_of_a_move_carries_it_through(
    hand: HandYard, nth: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = scattered(hand)
    big = job(hand, "big", FULL)
    count = 0

    def dies(act: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        if count == nth and not after:
            raise KilledError
        act()
        if count == nth:
            raise KilledError

    write, start, stop = Store.write, hand.runtime.start, hand.runtime.stop

    @contextmanager
    def writing(store: Store) -> Iterator[Connection]:
        with ExitStack() as stack:
            c = stack.enter_context(write(store))
            yield c
            if not after:
                dies(lambda: None)
        if after:
            dies(lambda: None)

    monkeypatch.setattr(Store, "write", writing)
    monkeypatch.setattr(hand.runtime, "start", lambda unit: dies(lambda: start(unit)))
    monkeypatch.setattr(hand.runtime, "stop", lambda *what: dies(lambda: stop(*what)))
    for _ in range(60):
        try:
            hand.loops.pass_once()
        except KilledError:
            break
        no_card_is_over(hand)
    monkeypatch.undo()
    hand.kill()
    hand.settle(200, lambda: no_card_is_over(hand))
    assert hand.now(big).state is WorkloadState.RUNNING
    assert all(hand.now(workload).state is WorkloadState.RUNNING for workload in stays)
    assert kinds(hand) == ["lease.move_begun", "lease.moved"]
    assert on_the_way(hand) == {}
    assert len(hand.runtime.started) == len(set(hand.runtime.started))
    with hand.yard.store.read() as c:
        counted = meters.intervals(c)
    for workload in stays:
        mine = [interval for interval in counted if interval.workload_id == workload.id]
        assert all(a.end_us <= b.start_us for a, b in pairwise(mine)), "no second twice"


def test_an_instance_moves_only_if_its_tenant_agreed_and_it_is_idle(hand: HandYard) -> None:
    stays = scattered(hand, checkpoint_command=())
    for workload in stays:
        commands.remove(hand.yard, workload.id, "tester")
    hand.settle()
    said = {"gpuyard/movable": "yes"}
    each = [
        hand.launch(
            hand.tenant("alice"),
            Launch(WorkloadKind.INSTANCE, HALF, command=("sit",), name=f"desk{n}", labels=said if n else {}),
        )
        for n in range(4)
    ]
    hand.settle()
    first, *others = each
    card = hand.lease(first).slices[0].card_uuid
    beside = [workload for workload in others if hand.lease(workload).slices[0].card_uuid == card]
    elsewhere = [workload for workload in others if workload not in beside]
    for workload in (*beside, elsewhere[0]):
        commands.remove(hand.yard, workload.id, "tester")
    hand.settle()
    big = job(hand, "big", FULL)
    hand.settle()
    assert kinds(hand) == [], "one did not agree, the other is in use"
    with hand.yard.store.write() as c:
        idle.keep(c, idle.Spell(elsewhere[1].id, elsewhere[1].tenant_id, hand.clock.now_us(), None, None, 0, 0))
    hand.clock.advance(20 * SECOND)
    hand.settle(200)
    assert hand.now(big).state is WorkloadState.RUNNING
    assert (hand.lease(first).attempt, hand.lease(elsewhere[1]).attempt) == (1, 2)


def test_room_is_made_on_a_node_with_cards_of_several_models(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "2xH100,2xRTX4090,1xL4")
    stays = scattered(hand)
    big = job(hand, "big", FULL)
    hand.settle(200, lambda: no_card_is_over(hand))
    assert hand.now(big).state is WorkloadState.RUNNING
    cards_used = {cut.card_uuid for workload in stays for cut in hand.lease(workload).slices}
    models = {card.model for card in hand.yard.roster.cards if card.uuid in cards_used}
    assert models == {"RTX4090"}, "a lease stays on the model that its price was set for"
