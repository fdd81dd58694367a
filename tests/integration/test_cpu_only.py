"""An instance may run without its cards: it holds none, costs the price of that, and gets them back at a later start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpuyard.billing.idle import ALL_QUIET
from gpuyard.control import commands, placement
from gpuyard.control.applying import StaleError
from gpuyard.control.launching import Launch, dry_run, prepare
from gpuyard.control.money import make_bill, rated_lines
from gpuyard.control.offering import SliceWish
from gpuyard.control.reconciling import reconcile
from gpuyard.engines.activity import Activity
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.workloads import CPU_ONLY_MEMORY_BYTES, Workload, WorkloadKind
from gpuyard.store import idle, leases, ledger, limits, meters, workloads
from hand_driven_yard import HandYard

SECOND = 1_000_000
HOUR = 3600 * SECOND
QUARTER = SliceWish(offer="rtx4090-quarter")


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    made = HandYard(tmp_path, "1xRTX4090")
    made.yard.book = replace(made.yard.book, cpu_only_per_hour_nano=20_000_000)
    return made


def box(hand: HandYard, **more: object) -> Workload:
    values: dict[str, object] = {"kind": WorkloadKind.INSTANCE, "slices": QUARTER, "name": "box", **more}
    made = hand.launch(hand.tenant("alice"), Launch(**values))  # type: ignore[arg-type]
    hand.settle()
    return made


def now(hand: HandYard, workload: Workload) -> Workload:
    with hand.yard.store.read() as c:
        return workloads.get(c, workload.id) or workload


def stop(hand: HandYard, workload: Workload) -> None:
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()


def start(hand: HandYard, workload: Workload, cpu_only: bool) -> None:
    commands.start(hand.yard, workload.id, "tester", cpu_only)
    hand.settle()


def unit(hand: HandYard):
    (only,) = hand.runtime.live().values()
    return only


def bill(hand: HandYard) -> list[tuple[str, int, int]]:
    with hand.yard.store.read() as c:
        lines = make_bill(c, "tn-alice", prices=hand.yard.prices).lines
        assert [(x.what, x.amount_nano) for x in lines] == [
            (x.what.value, x.amount_nano) for x in rated_lines(c, hand.yard.prices, "tn-alice")
        ]
    return [(line.what, line.duration_us // SECOND, line.amount_nano) for line in lines]


def test_a_night_without_cards_costs_their_price_and_not_that_of_the_cards(hand: HandYard) -> None:
    workload = box(hand)
    hand.clock.advance(HOUR)
    stop(hand, workload)
    start(hand, workload, cpu_only=True)
    assert now(hand, workload).state is WorkloadState.RUNNING
    held = unit(hand)
    assert held.slices == ()
    assert held.environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert (held.cpu_milli, held.memory_bytes) == (1000, CPU_ONLY_MEMORY_BYTES)
    with hand.yard.store.read() as c:
        assert leases.usage(c) == {}
    hand.clock.advance(HOUR)
    stop(hand, workload)
    start(hand, workload, cpu_only=False)
    assert len(unit(hand).slices) == 1
    hand.clock.advance(HOUR)
    stop(hand, workload)
    price = hand.yard.book.price_nano("RTX4090", 250_000)
    assert [line for line in bill(hand) if line[0] != "stopped"] == [
        ("active", 3600, price), ("cpu_only", 3600, 20_000_000), ("active", 3600, price),
    ]  # fmt: skip


def test_all_three_of_the_reconciliation_know_of_no_card_time_without_cards(hand: HandYard) -> None:
    workload = box(hand, cpu_only=True)
    hand.clock.advance(HOUR)
    stop(hand, workload)
    seen = reconcile(hand.yard, hand.clock.now_us(), everything=True)
    assert (seen.found, seen.faults) == ((), ())
    assert (seen.scheduler_us, seen.node_us, seen.billed_us) == (HOUR, HOUR, HOUR)
    assert (seen.scheduler_card_us, seen.node_card_us, seen.billed_card_us) == (0, 0, 0)
    start(hand, workload, cpu_only=False)
    hand.clock.advance(HOUR)
    hand.loops.pass_once()  # what runs is compared too, as far as it is billed
    seen = reconcile(hand.yard, hand.clock.now_us(), everything=False)
    assert seen.found == ()
    assert (seen.scheduler_us, seen.node_us, seen.billed_us) == (2 * HOUR, 2 * HOUR, 2 * HOUR)
    assert (seen.scheduler_card_us, seen.node_card_us, seen.billed_card_us) == (HOUR // 4, HOUR // 4, HOUR // 4)


def test_time_on_more_of_a_card_than_the_node_knows_is_an_incident(hand: HandYard) -> None:
    workload = box(hand)
    hand.clock.advance(HOUR)
    stop(hand, workload)
    with hand.yard.store.write() as c:
        c.exec_driver_sql("UPDATE unit_times SET share_ppm = 500000")
    (found,) = reconcile(hand.yard, hand.clock.now_us(), everything=True).found
    assert (found.scheduler_us, found.node_us, found.billed_us) == (HOUR, HOUR, HOUR)
    assert (found.scheduler_card_us, found.node_card_us, found.billed_card_us) == (HOUR // 4, HOUR // 2, HOUR // 4)
    with hand.yard.store.write() as c:
        c.exec_driver_sql("UPDATE unit_times SET share_ppm = NULL")  # as a node of before wrote it: held against nobody
    assert reconcile(hand.yard, hand.clock.now_us(), everything=True).found == ()


def test_its_first_start_may_be_without_cards_where_all_cards_are_taken(hand: HandYard) -> None:
    whole = SliceWish(offer="rtx4090-full")
    full = box(hand, slices=whole, name="full", cpu_milli=1000, memory_bytes=1 << 30)  # and leaves some CPU
    plan = dry_run(hand.yard, prepare(hand.yard, Launch(kind=WorkloadKind.INSTANCE, slices=QUARTER, cpu_only=True)))
    assert [placed.card_uuids for placed in plan.placements] == [()]
    workload = box(hand, cpu_only=True)
    assert now(hand, workload).state is WorkloadState.RUNNING
    stop(hand, workload)
    start(hand, workload, cpu_only=False)
    assert now(hand, workload).state is WorkloadState.PENDING  # now it wants its slice, and there is none
    stop(hand, full)
    hand.settle()
    assert now(hand, workload).state is WorkloadState.RUNNING


def test_what_still_runs_the_other_way_has_to_stop_first(hand: HandYard) -> None:
    workload = box(hand)
    with pytest.raises(YardError) as refused:
        commands.start(hand.yard, workload.id, "tester", cpu_only=True)
    assert refused.value.code == "cpu_only_switch"
    commands.stop(hand.yard, workload.id, "tester")  # and not only begin to
    with pytest.raises(YardError) as refused:
        commands.start(hand.yard, workload.id, "tester", cpu_only=True)
    assert refused.value.code == "cpu_only_switch"
    hand.settle()
    start(hand, workload, cpu_only=True)
    commands.start(hand.yard, workload.id, "tester", cpu_only=True)  # it does already
    assert now(hand, workload).cpu_only


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"kind": WorkloadKind.JOB, "command": ("true",)}, "not_instance"),
        ({"option": PurchaseOption.SPOT}, "on_spot"),
    ],
)
def test_jobs_and_spot_need_their_cards(hand: HandYard, wish: dict[str, object], why: str) -> None:
    with pytest.raises(YardError) as refused:
        box(hand, cpu_only=True, **wish)
    assert (refused.value.code, refused.value.params) == ("cpu_only_refused", {"why": why})


def test_without_a_price_for_it_nothing_starts_so(hand: HandYard) -> None:
    waits = hand.launch(
        hand.tenant("alice"), Launch(kind=WorkloadKind.INSTANCE, slices=QUARTER, name="late", cpu_only=True)
    )
    hand.yard.book = replace(hand.yard.book, cpu_only_per_hour_nano=None)  # before it was granted
    hand.settle()
    assert now(hand, waits).state is WorkloadState.PENDING
    assert now(hand, waits).reason_params["shortfalls"] == [{"lacks": "no_cpu_only_price"}]
    with pytest.raises(YardError) as refused:
        box(hand, cpu_only=True)
    assert refused.value.params == {"why": "no_price"}
    hand.yard.book = replace(hand.yard.book, cpu_only_per_hour_nano=20_000_000)
    hand.settle()
    assert now(hand, waits).state is WorkloadState.RUNNING


def test_it_counts_for_no_card_against_a_quota_and_its_cards_count_again_later(hand: HandYard) -> None:
    with hand.yard.store.write() as c:
        limits.put_quota(c, "project", "tn-alice", "card_share_ppm", None, 100_000)
    workload = box(hand, cpu_only=True)
    stop(hand, workload)
    with pytest.raises(YardError) as refused:
        commands.start(hand.yard, workload.id, "tester")
    assert refused.value.code == "quota_exceeded"
    assert now(hand, workload).cpu_only  # nothing of the start that was refused is left
    start(hand, workload, cpu_only=True)
    assert now(hand, workload).state is WorkloadState.RUNNING


def test_money_is_held_for_what_it_will_cost(hand: HandYard) -> None:
    owner = hand.tenant("bob", 10**9)
    workload = hand.launch(owner, Launch(kind=WorkloadKind.INSTANCE, slices=QUARTER, name="box", cpu_only=True))
    window = hand.yard.wallet_terms.hold_window_us

    def held() -> int:
        with hand.yard.store.read() as c:
            return ledger.wallet(c, owner.id, "USD")[1]

    assert held() == -(-20_000_000 * window // HOUR)
    hand.settle()
    stop(hand, workload)
    hand.clock.advance(60 * SECOND)
    hand.settle()
    assert held() == 0
    commands.start(hand.yard, workload.id, "tester")
    assert held() == -(-hand.yard.book.price_nano("RTX4090", 250_000) * window // HOUR)


def test_a_yard_killed_anywhere_starts_it_without_cards_all_the_same(hand: HandYard) -> None:
    workload = hand.launch(
        hand.tenant("alice"), Launch(kind=WorkloadKind.INSTANCE, slices=QUARTER, name="box", cpu_only=True)
    )
    book = hand.yard.book
    for _ in range(6):
        hand.kill()
        hand.yard.book = book
        hand.loops.pass_once()
        hand.clock.advance(SECOND)
    hand.settle()
    with hand.yard.store.read() as c:
        (held,) = leases.of_workload(c, workload.id)
        assert (held.state, held.slices) == (LeaseState.ACTIVE, ())
        assert [meter.share_ppm for meter in meters.open_meters(c).values()] == [0]


def test_it_is_idle_though_no_card_can_be_asked(hand: HandYard, monkeypatch: pytest.MonkeyPatch) -> None:
    with hand.yard.store.write() as c:
        idle.put(c, "tn-alice", [signal.value for signal in ALL_QUIET], 60 * SECOND, 120 * SECOND)
    workload = box(hand, cpu_only=True)
    monkeypatch.setattr(type(hand.runtime), "activity", lambda *_: Activity(hand.clock.now_us(), 500))
    for _ in range(9):
        hand.clock.advance(20 * SECOND)
        hand.settle()
    assert now(hand, workload).state is WorkloadState.RUNNING  # it computes: what else should it do without a card
    monkeypatch.setattr(type(hand.runtime), "activity", lambda *_: Activity(0, 500))
    for _ in range(9):
        hand.clock.advance(20 * SECOND)
        hand.settle()
    assert (now(hand, workload).state, now(hand, workload).reason) == (WorkloadState.STOPPED, "idle")


def test_with_its_cards_it_waits_where_none_is_here_any_more(hand: HandYard) -> None:
    workload = box(hand, cpu_only=True)
    stop(hand, workload)
    hand.probe.broken.update(card.uuid for card in hand.yard.roster.cards)
    hand.clock.advance(60 * SECOND)
    hand.settle()
    start(hand, workload, cpu_only=False)
    assert now(hand, workload).state is WorkloadState.PENDING
    hand.probe.broken.clear()
    hand.clock.advance(60 * SECOND)
    hand.settle()
    assert now(hand, workload).state is WorkloadState.RUNNING


def test_a_plan_that_was_made_for_the_other_way_is_not_applied(hand: HandYard, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = Launch(kind=WorkloadKind.INSTANCE, slices=QUARTER, name="box")
    workload = hand.launch(hand.tenant("alice"), wish)
    real = placement.decide

    def meanwhile(*args: object) -> object:
        made = real(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        commands.stop(hand.yard, workload.id, "tester")
        commands.start(hand.yard, workload.id, "tester", cpu_only=True)
        return made

    monkeypatch.setattr(placement, "decide", meanwhile)
    with pytest.raises(StaleError):
        hand.loops.pass_once()
    hand.settle()
    assert unit(hand).slices == ()
