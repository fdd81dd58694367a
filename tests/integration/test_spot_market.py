"""The spot market of a yard: prices that rise where slots are short, come down again, and can be worked out by anyone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import ApiInHand
from gpuyard.billing.spot import recompute
from gpuyard.catalog.price_history import parse_history
from gpuyard.catalog.rows import Place
from gpuyard.model.times import from_text
from gpuyard.store import placements

MINUTE = 60_000_000
BOOK = {
    "currency": "USD",
    "storage_per_gib_hour": "0.0001",
    "cards": {"RTX4090": {"on_demand": "0.60", "spot_floor": "0.10"}},
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path, "1xRTX4090")
    api.hand.yard.prices = parse_history(BOOK, Place("price_book_invalid", "p"))
    api.hand.settle()
    yield api
    api.close()


def launch_on_spot(api: ApiInHand, name: str, offer: str = "rtx4090-half") -> None:
    asked = {"kind": "instance", "name": name, "slices": {"offer": offer}, "option": "spot"}
    assert api.alice.post("/v1/workloads", json=asked).status_code == 201
    api.hand.settle()


def minutes(api: ApiInHand, count: int) -> None:
    for _ in range(count):
        api.hand.clock.advance(MINUTE)
        api.hand.settle()


def prices(api: ApiInHand) -> list[str]:
    return [each["price"] for each in api.alice.get("/v1/spot/prices?offer=rtx4090-half").json()["items"]]


def test_without_anybody_on_spot_nothing_is_written(api: ApiInHand) -> None:
    before = api.everything()["spot_rounds"]
    minutes(api, 5)
    assert api.everything()["spot_rounds"] == before == []


def test_a_price_begins_at_the_floor_rises_while_slots_are_short_and_comes_down_again(api: ApiInHand) -> None:
    launch_on_spot(api, "one")
    launch_on_spot(api, "two")
    minutes(api, 3)
    assert prices(api) == ["0.05"]
    launch_on_spot(api, "three")
    minutes(api, 40)
    risen = prices(api)
    assert risen[-1] == "0.30"  # the price on demand
    assert [float(price) for price in risen] == sorted(float(price) for price in risen)
    assert all(float(b) <= float(a) * 1.05 + 1e-9 for a, b in pairwise(risen))
    for name in ("two", "three"):
        api.alice.delete(f"/v1/workloads/{name}")
    minutes(api, 60)
    assert prices(api)[-1] == "0.05"
    hints = [
        event
        for event in api.alice.get("/v1/events?limit=500").json()["items"]
        if event["kind"] == "spot.rebalance_recommended"
    ]
    assert hints


def test_who_runs_on_spot_pays_the_price_in_force_minute_by_minute(api: ApiInHand) -> None:
    launch_on_spot(api, "one")
    minutes(api, 1)
    launch_on_spot(api, "two")
    launch_on_spot(api, "three")
    minutes(api, 10)
    api.alice.delete("/v1/workloads/one")
    api.hand.settle()
    charged = {
        line["price_per_hour"] for line in api.alice.get("/v1/bill").json()["lines"] if line["workload_name"] == "one"
    }
    assert charged >= set(prices(api)[:10])
    assert "0.30" not in charged  # never the price on demand while spot is cheaper


def test_every_round_can_be_worked_out_again_by_anyone_and_survives_a_kill(api: ApiInHand) -> None:
    launch_on_spot(api, "one")
    minutes(api, 1)
    launch_on_spot(api, "two")
    launch_on_spot(api, "three")
    minutes(api, 5)
    book = api.hand.yard.prices
    api.hand.kill()
    api.hand.yard.prices = book
    api.app.state.yard = api.hand.yard
    minutes(api, 5)
    rounds = api.bob.get("/v1/spot/rounds?offer=rtx4090-half").json()["rounds"]
    assert len(rounds) >= 9
    for published in rounds:
        recompute(published)
    assert not any("alice" in str(published) for published in rounds)


def test_what_the_yard_takes_back_within_the_first_hour_costs_nothing(api: ApiInHand) -> None:
    launch_on_spot(api, "cheap", "rtx4090-full")
    minutes(api, 15)
    assert float(api.alice.get("/v1/bill").json()["total"]) > 0
    asked = {"kind": "instance", "name": "urgent", "slices": {"offer": "rtx4090-full"}}
    assert api.bob.post("/v1/workloads", json=asked).status_code == 201
    api.hand.settle()
    minutes(api, 5)
    assert api.bob.get("/v1/workloads/urgent").json()["state"] == "running"
    bill = api.alice.get("/v1/bill").json()
    assert {line["what"] for line in bill["lines"]} == {"active", "reclaim_credit"}
    assert float(bill["total"]) == 0


# ---- bids of tenants


def bid(api: ApiInHand, name: str, most: str, offer: str = "rtx4090-half", client: Any = None) -> Any:
    asked = {"kind": "instance", "name": name, "slices": {"offer": offer}, "option": "spot", "max_price": most}
    answer = (client or api.alice).post("/v1/workloads", json=asked)
    api.hand.settle()
    return answer


def state(api: ApiInHand, name: str) -> str:
    return api.alice.get(f"/v1/workloads/{name}").json()["state"]


def test_who_bids_less_than_the_price_is_told_goes_in_time_waits_with_a_reason_and_comes_back(api: ApiInHand) -> None:
    assert bid(api, "low", "0.08").status_code == 201
    launch_on_spot(api, "one")
    minutes(api, 2)
    assert state(api, "low") == "running"
    launch_on_spot(api, "two")  # one too many: the highest losing bid is the low one
    minutes(api, 30)
    shown = api.alice.get("/v1/workloads/low").json()
    assert prices(api)[-1] == "0.08"  # never above what the loser bids, as that is the fair price
    launch_on_spot(api, "three")
    minutes(api, 30)
    shown = api.alice.get("/v1/workloads/low").json()
    assert (shown["state"], shown["spec"]["max_price"]) == ("pending", "0.08")
    assert "0.08" in shown["reason_text"]
    told = [each for each in api.alice.get("/v1/events?limit=500").json()["items"] if each["subject"].startswith("ls-")]
    notice = next(each for each in told if each["kind"] == "lease.reclaim_notice")
    left = next(each for each in told if each["kind"] == "lease.requested" and each["data"]["reason"] == "reclaimed")
    assert notice["data"]["max_price_nano"] == 80_000_000 < notice["data"]["price_nano"]
    assert from_text(notice["data"]["until"]) - from_text(notice["at"]) >= 120_000_000
    assert left["subject"] == notice["subject"]
    paid = {
        float(line["price_per_hour"])
        for line in api.alice.get("/v1/bill").json()["lines"]
        if line["workload_name"] == "low"
    }
    assert max(paid) <= 0.08  # nor while it is on its way out
    for name in ("one", "two", "three"):
        api.alice.delete(f"/v1/workloads/{name}")
    minutes(api, 60)
    assert state(api, "low") == "running"


def test_bids_stand_in_the_published_rounds_and_change_the_price(api: ApiInHand) -> None:
    for n in range(3):
        bid(api, f"b{n}", f"0.{10 + n}")
    minutes(api, 30)
    rounds = api.bob.get("/v1/spot/rounds?offer=rtx4090-half").json()["rounds"]
    assert sorted(each["price_nano"] for each in rounds[0]["round"]["bids"]) == [10**8, 11 * 10**7, 12 * 10**7]
    for published in rounds:
        recompute(published)
    assert prices(api)[-1] == "0.10"


def test_a_lease_of_two_slices_pays_the_spot_price_of_two(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path, "2xRTX4090")
    api.hand.yard.prices = parse_history(BOOK, Place("price_book_invalid", "p"))
    api.hand.settle()
    asked = {"kind": "instance", "name": "two", "slices": {"offer": "rtx4090-half", "count": 2}, "option": "spot"}
    assert api.alice.post("/v1/workloads", json=asked).status_code == 201
    minutes(api, 61)
    lines = api.alice.get("/v1/bill").json()["lines"]
    assert {line["price_per_hour"] for line in lines if line["what"] == "active"} == {"0.10"}
    api.close()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"option": "on_demand", "max_price": "0.20"}, "bid_refused"),
        ({"option": "spot", "max_price": "0.01"}, "bid_refused"),
        ({"option": "spot", "max_price": "cheap"}, "invalid_price"),
        (
            {"option": "spot", "max_price": "0.20", "slices": {"card_model": "RTX4090", "compute_ppm": 300_000}},
            "bid_refused",
        ),
    ],
)
def test_a_bid_that_cannot_be_is_refused_and_nothing_is_launched(api: ApiInHand, more: Any, code: str) -> None:
    before = api.everything()["workloads"]
    asked = {"kind": "instance", "slices": {"offer": "rtx4090-half"}, **more}
    assert api.alice.post("/v1/workloads", json=asked).json()["code"] == code
    assert api.everything()["workloads"] == before


def test_a_notice_for_the_price_survives_a_kill_and_is_taken_back_when_the_price_comes_down(api: ApiInHand) -> None:
    bid(api, "low", "0.08")
    minutes(api, 1)
    for name in ("one", "two", "three"):
        launch_on_spot(api, name)
    while not noticed(api):
        minutes(api, 1)
    book = api.hand.yard.prices
    api.hand.kill()
    api.hand.yard.prices = book
    api.app.state.yard = api.hand.yard
    api.hand.settle()
    assert noticed(api)
    minutes(api, 4)
    assert state(api, "low") == "pending"


def noticed(api: ApiInHand) -> bool:
    with api.hand.yard.store.read() as c:
        return bool(placements.notices(c))
