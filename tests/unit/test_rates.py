"""Token buckets: what they let through, and that strangers cannot fill the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_in_hand import QUARTER, ApiInHand
from gpuyard.access.rate_limits import ActionClass, Rate, classify
from gpuyard.access.rates import Buckets

SECOND_US = 1_000_000


def test_a_burst_and_then_so_many_a_second() -> None:
    buckets = Buckets(per_second=2, burst=3)
    for _ in range(3):
        assert buckets.wait_us("a", 0) == 0
        buckets.take("a", 0)
    assert buckets.wait_us("a", 0) == SECOND_US // 2
    assert buckets.wait_us("a", SECOND_US // 2) == 0
    assert buckets.wait_us("b", 0) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(per_second=2, burst=1)
    buckets.take("a", 5 * SECOND_US)
    assert buckets.wait_us("a", 0) > 0


def test_ever_new_keys_are_forgotten() -> None:
    buckets = Buckets(per_second=1, burst=1, most=10)
    for n in range(1000):
        buckets.take(str(n), 0)
    assert buckets.wait_us("999", 0) > 0
    assert buckets.wait_us("0", 0) == 0


def test_whoever_guesses_tokens_is_made_to_wait(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    api.app.state.strangers = Buckets(per_second=0.5, burst=5)
    stranger = api.with_token("gy_guess")
    answers = [stranger.get("/v1/whoami") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) in (1, 2)
    assert answers[-1].json()["code"] == "too_many_requests"
    api.close()


def test_each_token_has_a_bucket_for_each_class_and_is_told_when_to_come_back(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    told = api.operator.put("/v1/rate-limits/launch", json={"per_second": 0.5, "burst": 2})
    assert told.json() == {"action_class": "launch", "per_second": 0.5, "burst": 2}
    answers = [api.alice.post("/v1/workloads", json=QUARTER) for _ in range(3)]
    assert [one.status_code for one in answers] == [201, 201, 429]
    refused = answers[-1]
    assert refused.headers["retry-after"] in ("1", "2")
    assert (refused.json()["code"], refused.json()["params"]["of"]) == ("too_many_requests", "launch")
    assert "that launch" in refused.json()["detail"]
    assert api.alice.get("/v1/workloads").status_code == 200
    assert api.bob.post("/v1/workloads", json=QUARTER).status_code == 201
    api.hand.kill()  # it is kept, and no limit is one too
    assert api.hand.yard.rates.rates[ActionClass.LAUNCH] == Rate(0.5, 2)
    api = ApiInHand(tmp_path)
    api.operator.put("/v1/rate-limits/launch", json={})
    assert {api.alice.post("/v1/workloads", json=QUARTER).status_code for _ in range(5)} == {201}
    api.close()


def test_only_operators_set_rates_and_only_ones_that_make_sense(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    assert api.alice.put("/v1/rate-limits/read", json={}).status_code == 403
    assert api.alice.get("/v1/rate-limits").status_code == 403
    for path, body in (("read", {"per_second": 0}), ("read", {"burst": 0}), ("all", {}), ("read", {"x": 1})):
        assert api.operator.put(f"/v1/rate-limits/{path}", json=body).status_code == 400
    rates = {one["action_class"] for one in api.operator.get("/v1/rate-limits").json()["items"]}
    assert rates == set(ActionClass)
    api.close()


@pytest.mark.parametrize(
    ("method", "path", "of"),
    [
        ("GET", "/v1/workloads", "read"),
        ("POST", "/v1/workloads", "launch"),
        ("POST", "/v1/workloads/box/stop", "change"),
        ("DELETE", "/v1/workloads/box", "change"),
        ("GET", "/v1/workloads/box/logs", "enter"),
        ("PUT", "/v1/workloads/box/files", "enter"),
        (None, "/v1/workloads/box/exec", "enter"),
        ("POST", "/v1/tokens", "change"),
        ("GET", "/", "read"),
    ],
)
def test_a_request_is_counted_as_what_it_does(method: str | None, path: str, of: str) -> None:
    assert classify(method, path) == of
