"""Money over the API: nothing runs on credit that is not there, and every sum can be taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.model.tenants import Role

MINUTE = 60_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path, "4xRTX4090")
    yield api
    api.close()


def tenant(api: ApiInHand, name: str, credit: str | None) -> Any:
    made = api.operator.post("/v1/tenants", json={"name": name, "credit": credit})
    assert made.status_code == 201
    return api.client(api.hand.tenant(name), Role.MEMBER)


def live(api: ApiInHand, minutes: int) -> None:
    for _ in range(minutes):
        api.hand.clock.advance(MINUTE)
        api.hand.settle()


def test_without_credit_a_launch_is_refused_and_a_plan_is_not(
    api: ApiInHand, problem_in_both: Callable[..., str]
) -> None:
    poor = tenant(api, "poor", "0.000000000")
    before = api.everything()
    told = problem_in_both(
        lambda headers: poor.post("/v1/workloads", json=QUARTER, headers=headers), 402, "insufficient_credit"
    )
    assert "poor" in told
    plan = poor.post("/v1/workloads?dry_run=true", json=QUARTER).json()
    assert plan["fits"] is True
    assert Decimal(plan["price_per_hour"]) > 0
    assert api.everything() == before


def test_all_that_a_tenant_runs_stops_when_its_credit_is_used_up_and_nobody_elses(api: ApiInHand) -> None:
    poor = tenant(api, "poor", "0.10")
    for client in (poor, poor, api.alice):
        assert client.post("/v1/workloads", json=QUARTER).status_code == 201
    api.hand.settle()
    live(api, 60)
    told = poor.get("/v1/workloads", headers={"Accept-Language": "zh"}).json()["items"]
    assert [item["state"] for item in told] == ["stopped", "stopped"]
    assert {item["reason"] for item in told} == {"credit_exhausted"}
    assert all(any("一" <= letter <= "鿿" for letter in item["reason_text"]) for item in told)
    assert [item["state"] for item in api.alice.get("/v1/workloads").json()["items"]] == ["running"]
    kinds = [item["kind"] for item in poor.get("/v1/events?limit=500").json()["items"]]
    assert kinds.count("tenant.credit_exhausted") == 1
    assert kinds.count("workload.stopping") == 2


def test_credit_spending_and_balance_agree_to_the_last_digit(api: ApiInHand) -> None:
    poor = tenant(api, "poor", "5.123456789")
    poor.post("/v1/workloads", json=QUARTER)
    api.hand.settle()
    live(api, 7)
    view = poor.get("/v1/tenants/poor").json()
    bill = poor.get("/v1/bill").json()
    assert view["credit"] == "5.123456789"
    assert Decimal(view["spent"]) == Decimal(bill["total"]) > 0
    assert Decimal(view["balance"]) == Decimal(view["credit"]) - Decimal(view["spent"])
    assert poor.get("/v1/tenants").json()["items"] == [view]
    api.operator.post("/v1/tenants/poor/credit", json={"amount": "0.000000001"})
    assert poor.get("/v1/tenants/poor").json()["credit"] == "5.123456790"


def test_only_operators_give_credit(api: ApiInHand, problem_in_both: Callable[..., str]) -> None:
    poor = tenant(api, "poor", "0")
    before = api.everything()
    for client in (poor, api.alice, api.client(api.hand.tenant("bob"), Role.VIEWER)):
        problem_in_both(
            lambda headers, client=client: client.post(
                "/v1/tenants/poor/credit", json={"amount": "100"}, headers=headers
            ),
            403,
            "forbidden",
        )
    after = api.everything()
    assert {k: v for k, v in after.items() if k != "tokens"} == {k: v for k, v in before.items() if k != "tokens"}


def test_a_top_up_is_enough_to_start_again_where_it_stopped(api: ApiInHand) -> None:
    poor = tenant(api, "poor", "0.01")
    made = poor.post("/v1/workloads", json={**QUARTER, "name": "box"}).json()
    api.hand.settle()
    live(api, 30)
    assert poor.get("/v1/workloads/box").json()["state"] == "stopped"
    assert poor.post("/v1/workloads", json=JOB).status_code == 402
    api.operator.post("/v1/tenants/poor/credit", json={"amount": "10"})
    assert poor.post("/v1/workloads/box/start").status_code == 202
    live(api, 2)
    again = poor.get("/v1/workloads/box").json()
    assert (again["id"], again["state"]) == (made["id"], "running")


def test_without_a_top_up_what_stopped_does_not_go_on(api: ApiInHand) -> None:
    poor = tenant(api, "poor", "0.010000001")
    poor.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    live(api, 30)
    spent = Decimal(poor.get("/v1/tenants/poor").json()["spent"])
    before = api.everything()
    refused = poor.post("/v1/workloads/box/start")
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credit")
    assert api.everything() == before
    live(api, 2)
    assert poor.get("/v1/workloads/box").json()["state"] == "stopped"
    assert Decimal(poor.get("/v1/tenants/poor").json()["spent"]) - spent < Decimal("0.001")


def test_every_price_is_an_exact_decimal_in_a_string(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json=QUARTER)
    api.hand.settle()
    live(api, 3)
    money = {"price_per_hour", "amount", "total", "credit", "spent", "balance"}

    def check(value: object, key: str = "") -> int:
        if isinstance(value, dict):
            return sum(check(inner, name) for name, inner in value.items())
        if isinstance(value, list):
            return sum(check(inner, key) for inner in value)
        assert not isinstance(value, float), key
        if key in money and value is not None:
            assert isinstance(value, str), key
            whole, point, part = value.partition(".")
            assert whole.isdecimal(), value
            assert (point, 2 <= len(part) <= 9, part.isdecimal()) == (".", True, True), value
            return 1
        return 0

    for path in ("/v1/offers", "/v1/bill", "/v1/intervals", "/v1/leases", "/v1/workloads", "/v1/tenants/alice"):
        assert check(api.alice.get(path).json()) > 0, path


def test_a_bill_can_be_taken_apart_by_tenant_workload_and_day(api: ApiInHand) -> None:
    for client, name in ((api.alice, "one"), (api.alice, "two"), (api.bob, "one")):
        client.post("/v1/workloads", json={**QUARTER, "name": name})
    api.hand.settle()
    for _ in range(30):
        api.hand.clock.advance(60 * MINUTE)
        api.hand.settle()
    whole = api.operator.get("/v1/bill").json()
    total = Decimal(whole["total"])
    tenants = [Decimal(api.operator.get(f"/v1/bill?tenant={name}").json()["total"]) for name in ("alice", "bob")]
    assert total == sum(tenants) > 0
    bill = api.alice.get("/v1/bill").json()
    assert Decimal(bill["total"]) == sum(map(Decimal, bill["by_workload"].values()))
    assert Decimal(bill["total"]) == sum(map(Decimal, bill["by_day"].values()))
    assert len(bill["by_day"]) >= 2
    for day, amount in bill["by_day"].items():
        assert api.alice.get(f"/v1/bill?day={day}").json()["total"] == amount
    for name, amount in bill["by_workload"].items():
        assert api.alice.get(f"/v1/bill?workload={name}").json()["total"] == amount
    days = sorted(bill["by_day"])
    assert api.alice.get(f"/v1/bill?from={days[0]}&until={days[-1]}").json()["total"] == bill["total"]
