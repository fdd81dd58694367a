"""The Python client: what is tried again and what is not, waiting, pages, errors; the same for both clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gpuyard.model.errors import YardError
from gpuyard.sdk import AsyncClient, Client, transport

Handler = Callable[[httpx.Request], httpx.Response]
WISH: Any = {"kind": "job", "slices": {"offer": "rtx4090-half"}, "command": ["true"]}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_SECONDS", 0.001)
    for module in ("client", "async_client"):
        monkeypatch.setattr(f"gpuyard.sdk.{module}.BACKOFF_SECONDS", 0.001, raising=False)


def workload(state: str, **more: Any) -> dict[str, Any]:
    return {"id": "wl-1", "name": "train", "state": state, "desired": "run", "reason_text": None, **more}


def ask(kind: str, handler: Handler, question: Callable[[Any], Any]) -> Any:
    """The answer to a question, through the client of this kind."""
    if kind == "sync":
        client = Client("http://yard", "gy_x")
        client._http = httpx.Client(
            base_url="http://yard", headers=client.target.headers, transport=httpx.MockTransport(handler)
        )
        with client:
            return question(client)

    async def run() -> Any:
        client = AsyncClient("http://yard", "gy_x")
        client._http = httpx.AsyncClient(
            base_url="http://yard", headers=client.target.headers, transport=httpx.MockTransport(handler)
        )
        async with client:
            return await question(client)

    return asyncio.run(run())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_a_launch_that_was_not_answered_is_sent_again_with_the_same_key(kind: str) -> None:
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ConnectError("gone")
        if len(keys) == 2:
            return httpx.Response(503, json={"code": "shutting_down", "detail": "soon", "status": 503, "params": {}})
        return httpx.Response(201, json=workload("pending"))

    made = ask(kind, handler, lambda client: client.launch(WISH))
    assert made["id"] == "wl-1"
    assert len(keys) == 3
    assert len(set(keys)) == 1


@both
def test_two_launches_have_two_keys(kind: str) -> None:
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(201, json=workload("pending"))

    for _ in range(2):
        ask(kind, handler, lambda client: client.launch(WISH))
    assert len(set(keys)) == 2


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 507])
def test_a_refusal_is_not_asked_again_and_keeps_its_code_and_facts(kind: str, status: int) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        problem = {
            "code": "unknown_offer",
            "detail": "There is no such offer.",
            "status": status,
            "params": {"offer": "x"},
        }
        return httpx.Response(status, json=problem)

    with pytest.raises(YardError) as refused:
        ask(kind, handler, lambda client: client.launch(WISH))
    assert refused.value.code == "unknown_offer"
    assert len(asked) == 1


@both
def test_a_yard_that_is_gone_is_said_to_be_after_a_few_tries(kind: str) -> None:
    tries: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        raise httpx.ConnectError("refused")

    with pytest.raises(YardError) as refused:
        ask(kind, handler, lambda client: client.launch(WISH))
    assert refused.value.code == "unreachable"
    assert len(tries) == transport.ATTEMPTS


@both
def test_something_else_that_answers_is_no_yard(kind: str) -> None:
    with pytest.raises(YardError):
        ask(kind, lambda _: httpx.Response(200, text="<html>hello</html>"), lambda client: client.launch(WISH))


@both
def test_waiting_ends_when_the_state_is_reached(kind: str) -> None:
    states = iter(["pending", "starting", "running"])
    done = ask(
        kind,
        lambda _: httpx.Response(200, json=workload(next(states))),
        lambda client: client.wait("wl-1", {"running"}),
    )
    assert done["state"] == "running"


@both
def test_waiting_for_what_can_no_longer_be_fails_with_its_reason(kind: str) -> None:
    answer = httpx.Response(200, json=workload("failed", reason_text="It ended with exit code 1."))
    with pytest.raises(YardError) as refused:
        ask(kind, lambda _: answer, lambda client: client.wait("wl-1", {"succeeded"}))
    assert refused.value.code == "workload_failed"
    assert refused.value.params["reason"] == "It ended with exit code 1."


@both
def test_waiting_does_not_last_for_ever(kind: str) -> None:
    with pytest.raises(YardError) as refused:
        ask(
            kind,
            lambda _: httpx.Response(200, json=workload("pending")),
            lambda client: client.wait("wl-1", {"running"}, timeout_s=0.05, poll_s=0.01),
        )
    assert refused.value.code == "timed_out"


@both
def test_every_page_is_read(kind: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        cursor = int(request.url.params.get("cursor", "0"))
        items = [workload("running", id=f"wl-{n}") for n in range(cursor, min(cursor + 2, 5))]
        return httpx.Response(200, json={"items": items, "next": str(cursor + 2) if cursor + 2 < 5 else None})

    if kind == "sync":
        found = ask(kind, handler, lambda client: [item["id"] for item in client.workloads()])
    else:

        async def every(client: Any) -> list[str]:
            return [item["id"] async for item in client.workloads()]

        found = ask(kind, handler, every)
    assert found == [f"wl-{n}" for n in range(5)]


@both
def test_the_token_goes_with_every_request_and_the_language_is_asked_for(kind: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer gy_x"
        assert request.headers["Accept-Language"] in {"en", "zh"}
        assert json.loads(request.content) == WISH
        return httpx.Response(201, json=workload("pending"))

    ask(kind, handler, lambda client: client.launch(WISH))
