"""What cards took and what that cost: measured where they tell it, estimated and told apart where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.billing.energy import Draw, Energy, Reading, busy_hours, energy
from gpuyard.catalog.price_history import PriceHistory, parse_history
from gpuyard.catalog.rows import Place
from gpuyard.control.energy_watch import read_energy, spread
from gpuyard.model.errors import YardError
from gpuyard.model.states import LeaseState
from gpuyard.store import energy as stored
from hand_driven_yard import HandYard
from money_histories import HOUR, SECOND, START, interval

NANO = 10**9
MJ_KWH = 3_600_000_000
PLACE = Place("price_book_invalid", "prices.toml")
SPAN = (START, START + 2 * HOUR)
FIRST = START // HOUR


def prices(**more: object) -> PriceHistory:
    cards = {"RTX4090": {"on_demand": "0.60"}}
    return parse_history({"currency": "USD", "storage_per_gib_hour": "0", "cards": cards, **more}, PLACE)


def test_what_counters_say_is_measured_and_costs_the_price_of_its_hour() -> None:
    told = [Reading("a", FIRST, MJ_KWH, HOUR), Reading("a", FIRST + 1, 2 * MJ_KWH, HOUR), Reading("z", FIRST, 9, HOUR)]
    found = energy(["a"], told, {}, None, SPAN, prices(power_per_kwh="0.10", power_overhead="50%"))
    assert found == Energy(3 * MJ_KWH, 1_000_000, 450_000_000)


def test_power_costs_what_the_clock_says() -> None:
    night = {"name": "night", "zone": "UTC", "from": "00:30", "until": "01:00", "discount": "50%"}
    told = [Reading("a", FIRST, MJ_KWH, HOUR), Reading("a", FIRST + 1, MJ_KWH, HOUR)]
    found = energy(["a"], told, {}, None, SPAN, prices(power_per_kwh="0.10", power_tariff=[night]))
    assert found is not None
    assert found.cost_nano == 75_000_000 + 100_000_000  # half of the first hour at half the price


def test_where_nothing_tells_busy_and_idle_watts_are_an_estimate_that_says_so() -> None:
    half = {FIRST: HOUR * 500_000}  # half of one card for the first of two hours
    found = energy(["a"], [], half, Draw(400, 20), SPAN, prices(power_per_kwh="1"))
    assert found == Energy((200 + 10 + 20) * 3600 * 1000, 0, round(Fraction(230 * NANO, 1000)))
    assumed = energy(["a"], [], {}, Draw(400), SPAN, None)
    assert assumed == Energy(40 * 2 * 3600 * 1000, 0, None)
    assert energy(["a"], [], {}, None, SPAN, None) is None


def test_what_was_measured_of_a_part_stands_and_only_the_rest_is_estimated() -> None:
    told = [Reading("a", FIRST, 1_000_000, HOUR // 2)]
    found = energy(["a"], told, {}, Draw(100, 100), SPAN, None)
    assert found == Energy(1_000_000 + 100 * 1800 * 1000 + 100 * 3600 * 1000, 250_000, None)


def test_a_lease_keeps_the_cards_busy_that_it_was_on_while_it_was() -> None:
    ran = interval("ls-1", 1, LeaseState.ACTIVE, 1, START + HOUR // 2, START + 3 * HOUR, 1, card_uuids=("a", "b"))
    stopped = interval("ls-1", 2, LeaseState.STOPPED, 1, START, START + HOUR, 1, card_uuids=("a",))
    busy = busy_hours([ran, stopped], {"ls-1": 1_000_000}, SPAN)
    assert {uuid: dict(hours) for uuid, hours in busy.items()} == {
        uuid: {FIRST: HOUR // 2 * 500_000, FIRST + 1: HOUR * 500_000} for uuid in ("a", "b")
    }


@given(st.integers(0, 10**15), st.integers(1, 10**12), st.integers(0, 10**12))
def test_what_is_spread_over_hours_is_all_of_it_and_all_of_the_time(from_us: int, length_us: int, mj: int) -> None:
    parts = list(spread(from_us, from_us + length_us, mj))
    assert sum(part[1] for part in parts) == mj
    assert sum(part[2] for part in parts) == length_us
    assert all(0 < part[2] <= HOUR and part[1] >= 0 for part in parts)


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[HandYard]:
    hand = HandYard(tmp_path)
    yield hand
    hand.yard.store.close()


def kept(hand: HandYard) -> tuple[int, int]:
    with hand.yard.store.read() as c:
        told = stored.hours(c, 0, 2**40)
    return sum(each[2] for each in told), sum(each[3] for each in told)


def test_counters_are_read_on_across_deaths_and_a_driver_that_begins_anew(hand: HandYard) -> None:
    for said in (1000, 4000, 9000):
        hand.yard.card_energy = lambda said=said: {"a": said}
        read_energy(hand.yard, hand.clock.now_us())
        read_energy(hand.yard, hand.clock.now_us())  # the same moment again counts nothing
        hand.clock.advance(60 * SECOND)
        hand.kill()
    assert kept(hand) == (8000, 120 * SECOND)
    hand.yard.card_energy = lambda: {"a": 50}  # the driver was loaded anew: what was before is not known
    read_energy(hand.yard, hand.clock.now_us())
    assert kept(hand) == (8000, 120 * SECOND)
    hand.clock.advance(60 * SECOND)
    hand.yard.card_energy = lambda: {"a": 150}
    read_energy(hand.yard, hand.clock.now_us())
    assert kept(hand) == (8100, 180 * SECOND)


@pytest.mark.parametrize(
    "more",
    [
        {"power_overhead": "30%"},
        {"power_per_kwh": "cheap"},
        {"power_per_kwh": "0.1", "power_overhead": "900%"},
        {"power_tariff": [{"name": "n", "zone": "UTC", "from": "00:00", "until": "01:00", "discount": "5%"}]},
    ],
)
def test_a_book_that_says_half_of_what_power_costs_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(YardError) as refused:
        prices(**more)
    assert refused.value.code == "price_book_invalid"
