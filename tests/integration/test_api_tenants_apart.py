"""Tenants do not trust each other: what one has does not exist for another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.model.tenants import Role


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path_factory.mktemp("yard"))
    yield api
    api.close()


@pytest.fixture(scope="module")
def secret(api: ApiInHand) -> dict[str, Any]:
    """A workload of Alice's, running."""
    body = {**QUARTER, "name": "secret", "secrets": {"KEY": "hunter2"}, "environment": {"A": "B"}}
    made = api.alice.post("/v1/workloads", json=body).json()
    api.hand.settle()
    return made


INSIDE = [
    ("GET", "/v1/workloads/{}"),
    ("DELETE", "/v1/workloads/{}"),
    ("POST", "/v1/workloads/{}/stop"),
    ("POST", "/v1/workloads/{}/start"),
    ("GET", "/v1/workloads/{}/logs"),
    ("GET", "/v1/workloads/{}/files?path=/"),
    ("PUT", "/v1/workloads/{}/files?path=/"),
]


@pytest.mark.parametrize(("method", "path"), INSIDE)
@pytest.mark.parametrize("by", ["id", "name"])
def test_anothers_workload_is_missing_in_the_same_words_as_one_that_never_was(
    api: ApiInHand, secret: dict[str, Any], method: str, path: str, by: str
) -> None:
    theirs = api.bob.request(method, path.format(secret[by]), content=b"")
    never = api.bob.request(method, path.format("wl-never"), content=b"")
    assert theirs.status_code == never.status_code == 404
    assert theirs.json()["detail"].replace(secret[by], "X") == never.json()["detail"].replace("wl-never", "X")


def test_anothers_workload_cannot_be_entered(api: ApiInHand, secret: dict[str, Any]) -> None:
    for path in (f"/v1/workloads/{secret['id']}/exec?command=sh", f"/v1/workloads/{secret['id']}/ports/80"):
        with pytest.raises(Exception) as refused, api.bob.websocket_connect(path):
            pass
        assert getattr(refused.value, "status_code", 0) == 404 or isinstance(refused.value, WebSocketDisconnect)


def test_lists_hold_only_what_is_ones_own(api: ApiInHand, secret: dict[str, Any]) -> None:
    api.hand.clock.advance(120_000_000)
    api.hand.settle()
    for path in ("/v1/workloads", "/v1/leases", "/v1/intervals", "/v1/bill", "/v1/events?limit=500"):
        assert secret["id"] not in api.bob.get(path).text
    assert secret["id"] in api.alice.get("/v1/workloads").text


@pytest.mark.parametrize(
    "path", ["/v1/workloads?tenant=alice", "/v1/bill?tenant=alice", "/v1/leases?tenant=alice", "/v1/tenants/alice"]
)
def test_asking_for_anothers_by_name_is_refused(api: ApiInHand, path: str) -> None:
    assert api.bob.get(path).status_code in {403, 404}
    assert api.operator.get(path).status_code == 200


def test_secrets_are_shown_to_nobody_again(api: ApiInHand, secret: dict[str, Any]) -> None:
    for client in (api.alice, api.operator):
        for path in (f"/v1/workloads/{secret['id']}", "/v1/events?limit=500", "/v1/workloads"):
            assert "hunter2" not in client.get(path).text
    assert b"hunter2" not in (api.hand.root / "yard.db").read_bytes()
    assert b"hunter2" not in (api.hand.root / "yard.db-wal").read_bytes()


def test_a_viewer_looks_and_touches_nothing(api: ApiInHand, secret: dict[str, Any]) -> None:
    viewer = api.client(api.hand.tenant("alice"), Role.VIEWER)
    assert viewer.get(f"/v1/workloads/{secret['id']}").status_code == 200
    for method, path in (("POST", f"/v1/workloads/{secret['id']}/stop"), ("DELETE", f"/v1/workloads/{secret['id']}")):
        assert viewer.request(method, path).json()["code"] == "forbidden"
    assert viewer.post("/v1/workloads", json=QUARTER).json()["code"] == "forbidden"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/yard", None),
        ("POST", "/v1/tenants", {"name": "mallory"}),
        ("POST", "/v1/tenants/alice/credit", {"amount": "100"}),
        ("POST", "/v1/tokens", {"user": "mallory", "role": "operator"}),
        ("DELETE", "/v1/tokens/tk-0", None),
    ],
)
def test_a_member_does_not_run_the_yard(api: ApiInHand, method: str, path: str, body: Any) -> None:
    before = api.everything()
    refused = api.alice.request(method, path, json=body)
    assert refused.status_code in {403, 404}
    after = api.everything()
    assert {name: rows for name, rows in after.items() if name != "events"} == {
        name: rows for name, rows in before.items() if name != "events"
    }


@pytest.mark.parametrize("token", [None, "", "gy_", "gy_wrong", "nonsense", "gy_" + "b" * 43, "gy_" + "a" * 5000])
def test_without_a_valid_token_there_is_nothing(api: ApiInHand, token: str | None) -> None:
    answer = api.with_token(token).get("/v1/workloads")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_token_opens_nothing_any_more(api: ApiInHand) -> None:
    made = api.operator.post("/v1/tokens", json={"user": "guest", "role": "member", "tenant": "bob"}).json()
    guest = api.with_token(made["token"])
    assert guest.get("/v1/whoami").json()["user"] == "guest"
    assert api.operator.delete(f"/v1/tokens/{made['id']}").status_code == 204
    assert guest.get("/v1/whoami").status_code == 401
    assert made["token"] not in api.operator.get("/v1/tokens").text


def test_the_same_key_makes_one_workload_however_often_it_is_sent(api: ApiInHand) -> None:
    headers = {"Idempotency-Key": "once"}
    first = api.alice.post("/v1/workloads", json=JOB, headers=headers)
    again = api.alice.post("/v1/workloads", json=JOB, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


def test_the_same_key_with_another_request_is_refused_and_changes_nothing(api: ApiInHand) -> None:
    headers = {"Idempotency-Key": "mixed"}
    assert api.alice.post("/v1/workloads", json=JOB, headers=headers).status_code == 201
    before = api.everything()
    other = api.alice.post("/v1/workloads", json={**JOB, "command": ["sleep", "6"]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert api.everything() == before


def test_keys_of_two_tenants_do_not_meet(api: ApiInHand) -> None:
    headers = {"Idempotency-Key": "shared"}
    mine, yours = (client.post("/v1/workloads", json=JOB, headers=headers) for client in (api.alice, api.bob))
    assert mine.status_code == yours.status_code == 201
    assert mine.json()["id"] != yours.json()["id"]


def test_eight_at_once_with_one_key_make_one_workload(api: ApiInHand) -> None:
    made: list[str] = []
    together = threading.Barrier(8)

    def launch() -> None:
        together.wait()
        made.append(api.alice.post("/v1/workloads", json=JOB, headers={"Idempotency-Key": "race"}).json()["id"])

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
