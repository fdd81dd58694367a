"""The spot market: what holds for every round, and that anyone can work a published one out again."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.billing.spot import Bid, Round, clear, losers, published, recompute
from gpuyard.model.errors import YardError

bids = st.lists(
    st.builds(
        Bid, id=st.uuids().map(str), price_nano=st.integers(0, 120), slots=st.integers(1, 4), since_us=st.integers(0, 3)
    ),
    max_size=8,
    unique_by=lambda bid: bid.id,
)
rounds = st.builds(
    Round,
    offer=st.just("rtx4090-full"),
    at_us=st.just(60_000_000),
    capacity_slots=st.integers(0, 10),
    other_slots=st.integers(0, 12),
    floor_nano=st.integers(0, 40),
    cap_nano=st.integers(40, 100),
    previous_nano=st.one_of(st.none(), st.integers(0, 100)),
    bids=bids.map(tuple),
)


@given(rounds)
def test_the_price_lies_between_floor_and_cap_and_no_winner_pays_more_than_it_bid(market: Round) -> None:
    found = clear(market)
    assert market.floor_nano <= found.price_nano <= market.cap_nano
    price = {bid.id: bid.price_nano for bid in market.bids}
    assert all(found.price_nano <= price[winner] for winner in found.won)


@given(rounds)
def test_no_more_is_sold_than_on_demand_leases_leave(market: Round) -> None:
    found = clear(market)
    assert sum(found.won.values()) <= max(0, market.capacity_slots - market.other_slots)
    wanted = {bid.id: bid.slots for bid in market.bids}
    assert all(0 < slots <= wanted[bid] for bid, slots in found.won.items())


@given(rounds)
def test_who_wins_never_bid_less_than_who_could_have_paid_and_lost(market: Round) -> None:
    found = clear(market)
    price = {bid.id: bid.price_nano for bid in market.bids}
    lost = [bid for bid in market.bids if bid.price_nano >= found.price_nano and found.won.get(bid.id, 0) < bid.slots]
    for bid in lost:
        assert all(price[winner] >= bid.price_nano for winner in found.won)
    if lost:
        assert sum(found.won.values()) == market.free_slots  # nothing is left unsold while someone would pay


@given(rounds, st.integers(1, 100), st.data())
def test_raising_a_losing_bid_never_lowers_the_price(market: Round, more: int, data: st.DataObject) -> None:
    found = clear(market)
    lost = [bid for bid in market.bids if bid.id not in found.won]
    if not lost:
        return
    raised = data.draw(st.sampled_from(lost))
    others = tuple(bid for bid in market.bids if bid != raised)
    again = clear(replace(market, bids=(*others, replace(raised, price_nano=raised.price_nano + more))))
    assert again.price_nano >= found.price_nano


@given(rounds)
def test_more_on_demand_leases_never_lower_the_price_or_leave_more_to_spot(market: Round) -> None:
    less, more = clear(market), clear(replace(market, other_slots=market.other_slots + 1))
    assert more.price_nano >= less.price_nano
    assert sum(more.won.values()) <= sum(less.won.values())


@given(rounds)
def test_a_price_moves_by_no_more_than_a_step_unless_floor_or_cap_say_so(market: Round) -> None:
    found = clear(market)
    if market.previous_nano is not None and market.floor_nano <= market.previous_nano <= market.cap_nano:
        step = max(1, market.previous_nano * market.step_ppm // 10**6)
        assert abs(found.price_nano - market.previous_nano) <= step


@given(rounds, st.integers(0, 99))
def test_the_order_in_which_bids_stand_does_not_matter(market: Round, seed: int) -> None:
    shuffled = list(market.bids)
    random.Random(seed).shuffle(shuffled)
    again = replace(market, bids=tuple(shuffled))
    assert clear(again) == clear(market)
    assert published(again, clear(again)) == published(market, clear(market))


def a_round(*told: tuple[str, int, int, int], capacity: int = 2, previous: int | None = None) -> Round:
    return Round("o", 0, capacity, 0, 10, 100, previous, tuple(Bid(*bid) for bid in told))


def test_the_highest_loser_sets_the_price_and_age_then_id_decide_between_equals() -> None:
    found = clear(a_round(("c", 50, 1, 2), ("b", 50, 1, 1), ("a", 50, 1, 2), ("d", 40, 1, 0)))
    assert (found.price_nano, list(found.won)) == (50, ["b", "a"])
    assert clear(a_round(("a", 90, 1, 0), ("b", 30, 1, 0), capacity=3)).price_nano == 10  # everybody has a place


def test_a_price_that_jumps_gets_there_step_by_step() -> None:
    market, prices = a_round(("a", 100, 1, 0), ("b", 80, 1, 0), capacity=1, previous=40), []
    for _ in range(20):
        prices.append(clear(market).price_nano)
        market = replace(market, previous_nano=prices[-1])
    assert prices[0] == 42
    assert prices == sorted(prices)
    assert prices[-1] == 80


def test_who_loses_is_named_with_how_many_of_its_leases_go() -> None:
    found = clear(a_round(("a", 50, 2, 0), ("b", 40, 2, 0), capacity=3))
    assert losers(found, {"a": 2, "b": 2, "gone": 1}) == {"b": 1, "gone": 1}
    assert found.hinted == ("b",)


@given(rounds)
def test_a_published_round_can_be_worked_out_by_anyone(market: Round) -> None:
    found = clear(market)
    facts = json.loads(json.dumps(published(market, found)))
    assert recompute(facts).price_nano == found.price_nano


def test_a_published_round_that_was_touched_is_noticed() -> None:
    from gpuyard.billing.spot import digest

    market = a_round(("a", 50, 1, 0), ("b", 40, 1, 0), ("c", 30, 1, 0))
    facts = published(market, clear(market))
    dearer = {**facts, "price_nano": facts["price_nano"] + 1}
    for touched, problem in ((dearer, "digest"), ({**dearer, "digest": digest(dearer)}, "outcome"), ({}, "unreadable")):
        with pytest.raises(YardError) as noticed:
            recompute(touched)
        assert noticed.value.params["problem"] == problem


@pytest.mark.parametrize(
    ("market", "problem"),
    [
        (a_round(("a", 50, 1, 0), ("a", 40, 1, 0)), "twice"),
        (a_round(("a", 50, 0, 0)), "empty"),
        (a_round(("a", -1, 1, 0)), "empty"),
        (replace(a_round(), floor_nano=101), "bounds"),
    ],
)
def test_bids_that_no_market_has_are_refused(market: Round, problem: str) -> None:
    with pytest.raises(YardError) as refused:
        clear(market)
    assert refused.value.params["problem"] == problem
