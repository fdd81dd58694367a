"""An idempotency key: the same request makes one workload, whatever happens between, and any other is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api_in_hand import JOB, QUARTER, ApiInHand

SECRET = {**QUARTER, "secrets": {"KEY": "hunter2"}, "labels": {"b": "2", "a": "1"}}


def send(client: Any, key: str, body: dict[str, Any], **params: str) -> httpx.Response:
    return client.post("/v1/workloads", json=body, headers={"Idempotency-Key": key}, params=params)


def test_the_order_of_fields_does_not_make_another_request(api: ApiInHand) -> None:
    first = send(api.alice, "order", SECRET)
    turned = {key: SECRET[key] for key in reversed(SECRET)} | {"labels": {"a": "1", "b": "2"}}
    again = send(api.alice, "order", turned)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize(
    "other",
    [
        {"secrets": {"KEY": "hunter3"}},
        {"secrets": {}},
        {"labels": {"a": "1"}},
        {"slices": {"offer": "rtx4090-half"}},
        {"kind": "service"},
        {"name": "other"},
        {"replicas": 2, "kind": "service"},
        {"environment": {"A": "B"}},
    ],
    ids=str,
)
def test_whatever_is_different_makes_another_request_and_nothing_is_changed(
    api: ApiInHand, problem_in_both: Callable[..., str], other: dict[str, Any]
) -> None:
    key = f"differs-{other}"[:200]
    assert send(api.alice, key, SECRET).status_code == 201
    before = api.everything()
    sentence = problem_in_both(
        lambda headers: api.alice.post(
            "/v1/workloads", json={**SECRET, **other}, headers={**headers, "Idempotency-Key": key}
        ),
        422,
        "idempotency_mismatch",
    )
    assert "hunter" not in sentence.replace(key, "")
    assert api.everything() == before


def test_a_refused_launch_does_not_use_up_its_key(api: ApiInHand) -> None:
    assert send(api.alice, "second try", {**JOB, "slices": {"offer": "none"}}).status_code == 422
    assert send(api.alice, "second try", JOB).status_code == 201


def test_asking_what_would_happen_does_not_use_up_the_key(api: ApiInHand) -> None:
    before = api.everything()
    for _ in range(2):
        plan = send(api.alice, "dry", JOB, dry_run="true")
        assert (plan.status_code, plan.json()["fits"]) == (200, True)
    assert api.everything() == before
    assert send(api.alice, "dry", JOB).status_code == 201


def test_the_key_of_what_has_run_stopped_or_is_gone_makes_nothing_new(api: ApiInHand) -> None:
    body = {**JOB, "slices": {"offer": "h100-full"}}  # nothing else here asks for that card
    made = send(api.alice, "gone", body).json()
    api.hand.settle()
    api.hand.clock.advance(6_000_000)
    api.hand.settle()
    assert send(api.alice, "gone", body).json()["state"] == "succeeded"
    api.alice.delete(f"/v1/workloads/{made['id']}")
    api.hand.settle()
    again = send(api.alice, "gone", body)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, made["id"], "removed")


def test_the_key_outlives_the_yard(api: ApiInHand) -> None:
    made = send(api.alice, "lasting", JOB).json()
    api.hand.kill()
    api.app.state.yard = api.hand.yard
    again = send(api.alice, "lasting", JOB)
    assert (again.status_code, again.json()["id"]) == (200, made["id"])


def test_an_operators_key_for_a_tenant_is_that_tenants(api: ApiInHand) -> None:
    made = send(api.operator, "helped", {**JOB, "tenant": "bob"}).json()
    again = send(api.operator, "helped", {**JOB, "tenant": "bob"})
    other = send(api.operator, "helped", {**JOB, "tenant": "alice"})
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert other.status_code == 201
    assert other.json()["id"] != made["id"]


def test_two_requests_that_race_for_one_key_make_one_workload_and_one_refusal(served: Any) -> None:
    before = len(served.api.alice.get("/v1/workloads?limit=500").json()["items"])
    together = threading.Barrier(6)
    answers: list[httpx.Response] = []

    def launch(n: int) -> None:
        body = {**JOB, "command": ["sleep", str(n % 2)]}
        together.wait()
        headers = {**served.alice, "Idempotency-Key": "race"}
        answers.append(httpx.post(f"{served.url}/v1/workloads", json=body, headers=headers, timeout=20))

    threads = [threading.Thread(target=launch, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201, 422, 422, 422]
    assert len({answer.json()["id"] for answer in answers if answer.status_code < 300}) == 1
    assert len(served.api.alice.get("/v1/workloads?limit=500").json()["items"]) == before + 1
