"""Instances without their cards, and what workloads sent, over HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand


@pytest.fixture(autouse=True)
def sold(api: ApiInHand) -> None:
    api.hand.yard.book = replace(api.hand.yard.book, cpu_only_per_hour_nano=50_000_000)


def test_it_is_launched_so_shown_so_and_started_either_way(api: ApiInHand) -> None:
    planned = api.alice.post("/v1/workloads?dry_run=true", json={**QUARTER, "cpu_only": True}).json()
    assert (planned["fits"], planned["price_per_hour"]) == (True, "0.05")
    made = api.alice.post("/v1/workloads", json={**QUARTER, "name": "desk", "cpu_only": True})
    assert (made.status_code, made.json()["cpu_only"]) == (201, True)
    api.hand.settle()
    shown = api.alice.get("/v1/workloads/desk").json()
    (lease,) = shown["leases"]
    assert (lease["state"], lease["slices"], lease["price_per_hour"]) == ("active", [], "0.05")
    assert shown["cpu_milli"] < shown["spec"]["cpu_milli"]
    refused = api.alice.post("/v1/workloads/desk/start").json()
    assert refused["code"] == "cpu_only_switch"
    assert "desk is running: wait until it has stopped, then start it with its cards." in refused["detail"]
    api.alice.post("/v1/workloads/desk/stop")
    api.hand.settle()
    assert api.alice.post("/v1/workloads/desk/start").json()["cpu_only"] is False
    api.hand.settle()
    (lease,) = api.alice.get("/v1/workloads/desk").json()["leases"]
    assert (lease["state"], len(lease["slices"])) == ("active", 1)
    api.alice.post("/v1/workloads/desk/stop")
    api.hand.settle()
    again = api.alice.post("/v1/workloads/desk/start?cpu_only=true")
    assert (again.status_code, again.json()["cpu_only"]) == (202, True)
    zh = api.alice.post("/v1/workloads/desk/start", headers={"Accept-Language": "zh"}).json()
    assert "再带显卡启动" in zh["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**JOB, "cpu_only": True}, "only instances can"),
        ({**QUARTER, "cpu_only": True, "option": "spot"}, "spot is a price of cards"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_nothing_is_written(
    api: ApiInHand, body: dict[str, object], words: str
) -> None:
    before = api.everything()
    refused = api.alice.post("/v1/workloads", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "cpu_only_refused")
    assert words in refused.json()["detail"]
    assert {**api.everything(), "audit": ()} == {**before, "audit": ()}


def test_a_key_of_a_launch_is_not_good_for_one_without_cards(api: ApiInHand) -> None:
    key = {"Idempotency-Key": "k"}
    first = api.alice.post("/v1/workloads", json=QUARTER, headers=key)
    again = api.alice.post("/v1/workloads", json=QUARTER, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    other = api.alice.post("/v1/workloads", json={**QUARTER, "cpu_only": True}, headers=key)
    assert other.json()["code"] == "idempotency_mismatch"


def test_what_a_workload_sent_is_shown_and_absent_where_nobody_counted(api: ApiInHand) -> None:
    made = api.alice.post(
        "/v1/workloads", json={**QUARTER, "name": "sender", "environment": {"SIMULATED_SENDING": "1000"}}
    )
    assert made.status_code == 201
    api.hand.settle()
    assert api.alice.get("/v1/workloads/sender").json()["sent_bytes"] is None
    api.hand.yard.book = replace(api.hand.yard.book, egress_per_gib_nano=90_000_000)
    api.hand.clock.advance(60_000_000)
    api.hand.settle()
    assert api.alice.get("/v1/workloads/sender").json()["sent_bytes"] == 60_000
    (line,) = [each for each in api.alice.get("/v1/bill").json()["lines"] if each["what"] == "egress"]
    assert (line["bytes"], line["price_per_hour"], line["amount"]) == (60_000, "0.09", "0.000005")
