"""Whole cards by day, shared ones at night, in a yard; and what the store keeps of a start that failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpuyard.api.why_view import why_view
from gpuyard.control.explaining import why
from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish
from gpuyard.control.pool import pool_use
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.workloads import Workload, WorkloadKind
from gpuyard.placing import find_scheduler, parse_weights
from gpuyard.scheduling.policies import TERMS
from gpuyard.store import leases, workloads
from hand_driven_yard import HandYard

QUARTER = SliceWish(offer="rtx4090-quarter")
DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    """Two cards; it is the first hour after the yard's hours of sharing."""
    found = HandYard(tmp_path, "2xRTX4090")
    minute = found.clock.now_us() % DAY_US // 60_000_000
    found.yard.scheduler = find_scheduler(sharing_window=((minute + 60) % 1440, (minute + 120) % 1440))
    return found


def job(hand: HandYard, name: str, **more: object) -> Workload:
    wish = Launch(WorkloadKind.JOB, QUARTER, name=name, command=("train",), **more)  # type: ignore[arg-type]
    made = hand.launch(hand.tenant("alice"), wish)
    hand.settle()
    with hand.yard.store.read() as c:
        return workloads.get(c, made.id) or made


def card_of(hand: HandYard, workload: Workload) -> str:
    with hand.yard.store.read() as c:
        return leases.of_workload(c, workload.id)[-1].slices[0].card_uuid


def lines(hand: HandYard, workload: Workload, language: str) -> str:
    return "\n".join(why_view(why(hand.yard, workload), language)["lines"])


def test_by_day_each_has_its_card_and_spot_waits_until_the_hours_of_sharing(hand: HandYard) -> None:
    first, second = job(hand, "first"), job(hand, "second")
    assert card_of(hand, first) != card_of(hand, second)
    assert "cards are its own for now" in lines(hand, first, "en")
    assert "由它独占" in lines(hand, first, "zh")
    spot = job(hand, "spot", option=PurchaseOption.SPOT)
    assert spot.state.value == "pending"
    assert "does not share them with this lease now" in lines(hand, spot, "en")
    assert "目前不与此租约共享" in lines(hand, spot, "zh")
    third = job(hand, "third")
    assert card_of(hand, third) in {card_of(hand, first), card_of(hand, second)}
    hand.clock.advance(90 * 60 * 1_000_000)
    hand.settle()
    assert card_of(hand, spot) in {card_of(hand, first), card_of(hand, second)}


def test_every_term_is_told_in_both_languages(hand: HandYard) -> None:
    placed = job(hand, "placed")
    for language, power in (("en", "power it adds (watts)"), ("zh", "增加的功耗 (watts)")):
        told = lines(hand, placed, language)
        assert power in told
        assert all(f"({term})" in told for term in TERMS)


def test_dearer_cards_are_left_where_price_counts(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "1xRTX4090,1xH100")
    dear = {**hand.yard.book.on_demand_nano, "RTX4090": 10**12}
    hand.yard.book = replace(hand.yard.book, on_demand_nano=dear)
    model = {card.uuid: card.model for node in hand.yard.roster.nodes for card in node.cards}
    for weights, taken in (({"price": 5000}, "H100"), ({"price": 0}, "RTX4090")):
        hand.yard.scheduler = find_scheduler(weights)
        wish = SliceWish(memory_bytes=6 << 30, compute_ppm=250_000)
        made = hand.launch(hand.tenant("alice"), Launch(WorkloadKind.JOB, wish, command=("train",)))
        hand.settle()
        assert model[card_of(hand, made)] == taken


@pytest.mark.parametrize("typed", ["watts", "watts=-1", "watts=x", "power=1", "watts=1000001", "=3"])
def test_a_weight_that_is_none_is_refused_by_name(typed: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_weights([typed])
    assert refused.value.code == "invalid_weight"
    assert parse_weights(["watts=4", "price=0"]) == {"watts": 4, "price": 0}


def test_the_target_stands_beside_what_is_leased(hand: HandYard) -> None:
    job(hand, "one")
    use = pool_use(hand.yard, hand.clock.now_us())
    assert (use.leased_ppm, use.target_ppm) == (125_000, 750_000)
