"""What came to share a card at night gets whole cards by day, as far as it may be moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.api.why_view import why_view
from gpuyard.control.explaining import why
from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Workload, WorkloadKind
from gpuyard.placing import find_scheduler
from gpuyard.scheduling.relocating import MovePolicy
from gpuyard.scheduling.windows import Window
from gpuyard.store import events, leases, workloads
from hand_driven_yard import HandYard

QUARTER = SliceWish(offer="rtx4090-quarter")
MINUTE_US = 60_000_000
DAY_MINUTES = 24 * 60


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    """Three cards; the hours of sharing go on for half an hour yet."""
    found = HandYard(tmp_path, "2xRTX4090;1xRTX4090")
    minute = found.clock.now_us() % (DAY_MINUTES * MINUTE_US) // MINUTE_US
    window = ((minute - 60) % DAY_MINUTES, (minute + 30) % DAY_MINUTES)
    found.yard.scheduler = find_scheduler(sharing_window=window)
    return found


def job(hand: HandYard, name: str, tenant: str = "alice", **more: object) -> Workload:
    values: dict[str, object] = {"command": ("train",), "checkpoint_command": ("save",), **more}
    made = hand.launch(hand.tenant(tenant), Launch(WorkloadKind.JOB, QUARTER, name=name, **values))  # type: ignore[arg-type]
    hand.settle()
    return made


def cards(hand: HandYard, *of: Workload) -> list[str]:
    with hand.yard.store.read() as c:
        return [leases.of_workload(c, workload.id)[-1].slices[0].card_uuid for workload in of]


def moved(hand: HandYard) -> int:
    with hand.yard.store.read() as c:
        return sum(event.kind == "lease.moved" for event in events.after(c, 0, None, 1000))


def morning(hand: HandYard, minutes: int = 40) -> None:
    for _ in range(minutes // 10):
        hand.clock.advance(10 * MINUTE_US)
        hand.settle(200)


def test_in_the_morning_those_who_pay_get_whole_cards_and_are_told_why(hand: HandYard) -> None:
    three = [job(hand, f"j{n}", f"t{n}") for n in range(3)]
    assert len(set(cards(hand, *three))) == 1
    morning(hand, 20)
    assert moved(hand) == 0, "the hours of sharing are not over"
    morning(hand)
    assert len(set(cards(hand, *three))) == 3
    assert moved(hand) == 2
    told = {language: [] for language in ("en", "zh")}
    for workload in three:
        with hand.yard.store.read() as c:
            found = workloads.get(c, workload.id)
            assert found is not None
        assert found.state is WorkloadState.RUNNING
        for language, lines in told.items():
            lines += why_view(why(hand.yard, found), language)["lines"]
    assert sum("when the hours in which cards are shared were over" in line for line in told["en"]) == 2
    assert sum("共享显卡的时段结束后" in line for line in told["zh"]) == 2


def test_what_may_not_be_moved_stays_and_the_other_goes(hand: HandYard) -> None:
    stays, goes = job(hand, "stays", checkpoint_command=()), job(hand, "goes")
    before = cards(hand, stays, goes)
    assert before[0] == before[1]
    morning(hand)
    after = cards(hand, stays, goes)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert moved(hand) == 1


@pytest.mark.parametrize(
    "why_not", [{"moves_an_hour": 0}, {"moves_a_day_each": 0}, {"window": Window(0, DAY_MINUTES)}], ids=str
)
def test_nothing_is_parted_beyond_a_budget_or_while_nodes_are_emptied(
    hand: HandYard, why_not: dict[str, object]
) -> None:
    two = [job(hand, f"j{n}") for n in range(2)]
    hand.yard.moves = MovePolicy(low_load_ppm=0, **why_not)  # type: ignore[arg-type]
    morning(hand)
    assert len(set(cards(hand, *two))) == 1
    assert moved(hand) == 0


def test_where_no_card_is_empty_they_go_on_sharing(hand: HandYard) -> None:
    many = [job(hand, f"j{n}", f"t{n}") for n in range(9)]
    morning(hand)
    assert len(set(cards(hand, *many))) == 3
    assert moved(hand) == 0
