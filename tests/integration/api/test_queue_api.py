"""The queue over HTTP: each tenant sees its own, only operators set shares, and nonsense is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api_in_hand import JOB, ApiInHand

Check = Callable[[Callable[[dict[str, str]], httpx.Response], int, str], str]
GOAL = {"card_model": "RTX4090", "card_hours": "10"}


def test_why_is_told_to_who_may_see_the_workload(api: ApiInHand, problem_in_both: Check) -> None:
    made = api.alice.post("/v1/workloads", json={**JOB, "name": "mine"}).json()
    api.hand.settle()
    told = api.alice.get(f"/v1/workloads/{made['id']}/why").json()
    assert told["state"] == "running"
    assert told["placements"][0]["node"] == "local"
    assert told["waiting"] is None
    assert len(told["lines"]) >= 2
    problem_in_both(
        lambda language: api.bob.get(f"/v1/workloads/{made['id']}/why", headers=language), 404, "workload_not_found"
    )
    problem_in_both(
        lambda language: api.bob.post(f"/v1/workloads/{made['id']}/checkpoint", headers=language),
        404,
        "workload_not_found",
    )
    assert api.alice.post("/v1/workloads/mine/checkpoint").json()["leases"] == 1
    api.alice.delete("/v1/workloads/mine")
    api.hand.settle()
    problem_in_both(
        lambda language: api.alice.post(f"/v1/workloads/{made['id']}/checkpoint", headers=language), 409, "not_running"
    )


def test_a_wait_tells_its_place_and_what_would_change_it(api: ApiInHand) -> None:
    for n in range(4):
        body = {**JOB, "name": f"full{n}", "slices": {"offer": "rtx4090-full"}, "command": ["train"]}
        assert api.alice.post("/v1/workloads", json=body).status_code == 201
    api.hand.settle()
    states = {n: api.alice.get(f"/v1/workloads/full{n}").json()["state"] for n in range(4)}
    waiting = [n for n, state in states.items() if state == "pending"]
    assert len(waiting) == 2
    told = [api.alice.get(f"/v1/workloads/full{n}/why").json()["waiting"] for n in waiting]
    assert sorted(each["position"] for each in told) == [1, 2]
    assert all(each["length"] == 2 and each["start_at"] is None and not each["never"] for each in told)
    assert all("any_model" in each["changes"] for each in told)
    for n in range(4):
        api.alice.delete(f"/v1/workloads/full{n}")
    api.hand.settle()


def test_only_operators_set_shares_and_a_member_sees_its_own(api: ApiInHand, problem_in_both: Check) -> None:
    problem_in_both(
        lambda language: api.alice.put("/v1/tenants/alice/share", json={"weight": 9}, headers=language),
        403,
        "forbidden",
    )
    assert api.operator.put("/v1/tenants/alice/share", json={"weight": 9, "max_priority": 2}).json()["weight"] == 9
    assert api.operator.put("/v1/tenants/alice/share", json={"quota_compute_ppm": 5}).json()["weight"] == 9
    assert (
        api.operator.put("/v1/tenants/alice/share", json={"quota_compute_ppm": None}).json()["quota_compute_ppm"]
        is None
    )
    assert api.alice.get("/v1/tenants/alice/share").json()["max_priority"] == 2
    problem_in_both(lambda language: api.alice.get("/v1/tenants/bob/share", headers=language), 404, "tenant_not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"weight": 0}, {"weight": 1.5}, {"weight": "2"}, {"weight": None}, {"weight": 10**9}, {"max_priority": -1},
        {"max_priority": 10}, {"quota_compute_ppm": -1}, {"quota_memory_bytes": 1 << 60}, {"may_borrow": "yes"},
        {"share": 1}, [],
    ],
    ids=str,
)  # fmt: skip
def test_a_share_that_cannot_be_changes_nothing(api: ApiInHand, problem_in_both: Check, body: Any) -> None:
    before = api.everything()
    problem_in_both(
        lambda language: api.operator.put("/v1/tenants/bob/share", json=body, headers=language), 400, "invalid_request"
    )
    assert api.everything() == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"goal": {**GOAL, "card_hours": "-1"}}, 400, "invalid_request"),
        ({"goal": {**GOAL, "card_hours": "1e9"}}, 400, "invalid_request"),
        ({"goal": {**GOAL, "card_hours": "0.000"}}, 400, "invalid_request"),
        ({"goal": {**GOAL, "card_hours": 10}}, 400, "invalid_request"),
        ({"goal": {**GOAL, "card_model": "RTX409O"}}, 422, "unknown_card_model"),
        ({"goal": {**GOAL, "deadline": "2026-11-23 15:00"}}, 400, "invalid_time"),
        ({"goal": {**GOAL, "budget": "ten"}}, 400, "invalid_price"),
        ({"goal": GOAL, "count": 0}, 400, "invalid_request"),
        ({"goal": GOAL, "count": 5}, 422, "too_many_slices"),
        ({"goal": GOAL, "option": "reserved"}, 400, "invalid_request"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_is_refused_in_words(
    api: ApiInHand, problem_in_both: Check, body: Any, status: int, code: str
) -> None:
    problem_in_both(lambda language: api.alice.post("/v1/plans", json=body, headers=language), status, code)


def test_a_plan_shows_every_tier_and_a_launch_takes_the_chosen_one(api: ApiInHand, problem_in_both: Check) -> None:
    plan = api.alice.post("/v1/plans", json={"goal": {**GOAL, "budget": "100"}}).json()
    assert [tier["card_model"] for tier in plan["tiers"] if tier["chosen"]] == [plan["chosen"]] == ["H100"]
    assert {tier["option"] for tier in plan["tiers"]} == {"on_demand", "spot"}
    assert plan["tiers"] == sorted(plan["tiers"], key=lambda tier: float(tier["cost"]))
    body = {**JOB, "name": "goal", "slices": {"goal": {**GOAL, "budget": "100"}}}
    made = api.alice.post("/v1/workloads", json=body).json()
    assert made["spec"]["slices"]["offer"] == "h100-full"
    both = {**JOB, "slices": {"goal": GOAL, "offer": "h100-full"}}
    problem_in_both(
        lambda language: api.alice.post("/v1/workloads", json=both, headers=language), 400, "invalid_request"
    )
    never = {**JOB, "slices": {"goal": {**GOAL, "deadline": "2020-01-01T00:00:00Z"}}}
    problem_in_both(
        lambda language: api.alice.post("/v1/workloads", json=never, headers=language), 422, "goal_unreachable"
    )
    api.alice.delete("/v1/workloads/goal")
    api.hand.settle()
