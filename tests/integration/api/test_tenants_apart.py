"""What one tenant has does not exist for another, over real sockets too; and every change says who made it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets

from api_in_hand import JOB, QUARTER
from gpuyard.model.tenants import Role


@pytest.fixture(scope="module")
def box(served: Any) -> dict[str, Any]:
    """A workload of Alice's, running, with a port."""
    made = served.api.alice.post("/v1/workloads", json={**QUARTER, "name": "box", "ports": [8080]}).json()
    served.api.hand.settle()
    return made


def knock(served: Any, headers: dict[str, str], path: str) -> tuple[int, str]:
    """The status and the sentence that a WebSocket is refused with."""

    async def open_it() -> tuple[int, str]:
        address = f"ws://127.0.0.1:{served.port}{path}"
        try:
            async with websockets.connect(address, additional_headers=headers, proxy=None) as line:
                return 101, str(await line.recv())
        except websockets.InvalidStatus as refused:
            return refused.response.status_code, json.loads(refused.response.body or b"{}").get("detail", "")

    return asyncio.run(open_it())


@pytest.mark.parametrize("door", ["exec?command=sh", "ports/8080", "ports/9999"])
def test_a_socket_into_anothers_workload_is_refused_in_the_words_for_one_that_never_was(
    served: Any, box: dict[str, Any], door: str
) -> None:
    never = knock(served, served.bob, f"/v1/workloads/wl-never/{door}")
    assert never[0] == 404
    for name in (box["id"], "box"):
        theirs = knock(served, served.bob, f"/v1/workloads/{name}/{door}")
        assert (theirs[0], theirs[1].replace(name, "wl-never")) == never
        joint = "&" if "?" in door else "?"
        by_tenant = knock(served, served.bob, f"/v1/workloads/{name}/{door}{joint}tenant=alice")
        assert by_tenant[0] == 404
    assert knock(served, {}, f"/v1/workloads/box/{door}")[0] == 401
    assert knock(served, {"Authorization": "Bearer gy_wrong"}, f"/v1/workloads/box/{door}")[0] == 401


def test_the_owner_does_come_in(served: Any, box: dict[str, Any]) -> None:
    status, said = knock(served, served.alice, "/v1/workloads/box/exec?command=id")
    assert (status, "simulated: id" in said) == (101, True)
    refused = knock(served, {**served.alice, "Accept-Language": "zh"}, "/v1/workloads/box/ports/9999")
    assert refused[0] == 409
    assert "8080" in refused[1]
    assert "端口" in refused[1]


@pytest.mark.parametrize("door", ["exec", "exec?command=id&columns=0", "exec?command=id&replica=-1", "ports/x"])
def test_a_socket_that_is_asked_for_wrongly_is_refused_as_a_problem(
    served: Any, box: dict[str, Any], door: str
) -> None:
    status, sentence = knock(served, {**served.alice, "Accept-Language": "zh"}, f"/v1/workloads/box/{door}")
    assert status == 400
    assert sentence.startswith("无法接受该请求：")


def test_nul_in_the_address_of_a_socket_is_refused(served: Any, box: dict[str, Any]) -> None:
    assert knock(served, served.alice, "/v1/workloads/box/exec?command=%00")[0] == 400
    assert knock(served, served.alice, "/v1/workloads/%00/exec?command=id")[0] == 400


def test_a_viewer_does_not_come_in(served: Any, box: dict[str, Any]) -> None:
    viewer = served.api.client(served.api.hand.tenant("alice"), Role.VIEWER)
    headers = {"Authorization": viewer.headers["Authorization"]}
    assert knock(served, headers, "/v1/workloads/box/exec?command=id")[0] == 403
    for path in ("logs", "files?path=/"):
        assert viewer.get(f"/v1/workloads/box/{path}").json()["code"] == "forbidden"


def test_a_name_that_two_tenants_use_means_to_each_its_own(served: Any, box: dict[str, Any]) -> None:
    other = served.api.bob.post("/v1/workloads", json={**JOB, "name": "box"}).json()
    assert served.api.bob.get("/v1/workloads/box").json()["id"] == other["id"]
    assert served.api.alice.get("/v1/workloads/box").json()["id"] == box["id"]
    assert served.api.operator.get("/v1/workloads/box?tenant=bob").json()["id"] == other["id"]
    unclear = served.api.operator.get("/v1/workloads/box", headers={"Accept-Language": "zh"})
    assert (unclear.status_code, unclear.json()["code"]) == (400, "invalid_request")
    assert "给出其 id" in unclear.json()["detail"]


def test_a_name_that_is_anothers_id_leads_nowhere(served: Any, box: dict[str, Any]) -> None:
    mine = served.api.bob.post("/v1/workloads", json={**JOB, "name": box["id"].replace("_", "-")})
    assert mine.status_code == 201
    found = served.api.bob.get(f"/v1/workloads/{box['id']}").json()
    assert found["tenant_id"] == mine.json()["tenant_id"]
    assert served.api.alice.get(f"/v1/workloads/{box['id']}").json()["id"] == box["id"]


def test_anothers_workload_is_in_no_bill_interval_or_page_that_one_may_ask_for(
    served: Any, box: dict[str, Any]
) -> None:
    served.api.hand.clock.advance(60_000_000)
    served.api.hand.settle()
    cursor = served.api.alice.get("/v1/leases?limit=1").json()["next"]
    for path in (
        f"/v1/bill?workload={box['id']}",
        f"/v1/intervals?workload={box['id']}",
        "/v1/intervals?tenant=alice",
        "/v1/leases?tenant=tn-alice",
        f"/v1/leases?limit=500&cursor={cursor}",
        "/v1/events?after=0&limit=500",
        "/v1/tenants/tn-alice",
        "/v1/tenants",
    ):
        answer = served.api.bob.get(path)
        assert answer.status_code in {200, 404}, path
        if answer.status_code == 200:
            assert "tn-alice" not in answer.text, path


def test_bob_may_launch_for_nobody_else(served: Any) -> None:
    before = served.api.everything()
    refused = served.api.bob.post("/v1/workloads", json={**JOB, "tenant": "alice"})
    never = served.api.bob.post("/v1/workloads", json={**JOB, "tenant": "never"})
    assert refused.status_code == never.status_code == 404
    assert refused.json()["detail"].replace("alice", "never") == never.json()["detail"]
    assert served.api.everything() == before
    made = served.api.operator.post("/v1/workloads", json={**JOB, "tenant": "alice"}).json()
    assert made["tenant_id"] == "tn-alice"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic Z3k6", "gy_x", "Bearer gy_x gy_y", "Bearer\tgy_x", "Bearer gy_" + "é" * 9]
)
def test_whatever_is_no_token_of_ours_is_refused_alike(
    api: Any, problem_in_both: Callable[..., str], value: str
) -> None:
    nobody = api.with_token(None)
    problem_in_both(
        lambda headers: nobody.get("/v1/workloads", headers={**headers, "Authorization": value.encode()}),
        401,
        "unauthenticated",
    )


def test_a_revoked_token_is_refused_by_open_connections_too(served: Any) -> None:
    made = served.api.operator.post("/v1/tokens", json={"user": "guest", "tenant": "bob"}).json()
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {made['token']}"}) as client:
        assert client.get("/v1/whoami").json()["user"] == "guest"
        assert served.api.operator.delete(f"/v1/tokens/{made['id']}").status_code == 204
        assert client.get("/v1/whoami").status_code == 401
    again = served.api.operator.delete(f"/v1/tokens/{made['id']}")
    assert (again.status_code, again.json()["code"]) == (404, "token_not_found")


def test_every_change_is_told_with_who_made_it_and_no_secret(api: Any) -> None:
    start = api.operator.get("/v1/events?limit=500").json()["next"] or 0
    api.operator.post("/v1/tenants", json={"name": "carol", "credit": "5"})
    token = api.operator.post("/v1/tokens", json={"user": "carol-1", "tenant": "carol"}).json()
    carol = api.with_token(token["token"])
    made = carol.post("/v1/workloads", json={**QUARTER, "secrets": {"KEY": "hunter2"}}).json()
    carol.post(f"/v1/workloads/{made['id']}/stop")
    carol.delete(f"/v1/workloads/{made['id']}")
    api.operator.post("/v1/tenants/carol/credit", json={"amount": "1"})
    api.operator.delete(f"/v1/tokens/{token['id']}")
    answer = api.operator.get(f"/v1/events?limit=500&after={start}")
    told = [(item["kind"], item["actor"]) for item in answer.json()["items"]]
    assert told == [
        ("tenant.added", "operators-operator"),
        ("token.added", "operators-operator"),
        ("workload.pending", "carol-1"),
        ("workload.stopping", "carol-1"),
        ("workload.removing", "carol-1"),
        ("tenant.credited", "operators-operator"),
        ("token.revoked", "operators-operator"),
    ]
    assert "hunter2" not in answer.text
    assert token["token"] not in answer.text
