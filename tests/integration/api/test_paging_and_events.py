"""Pages cover everything once while the world goes on, and the live stream resumes over broken connections."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api_in_hand import JOB, ApiInHand

SECOND = 1_000_000
LISTS = ["/v1/workloads", "/v1/leases", "/v1/intervals", "/v1/cards", "/v1/nodes", "/v1/offers"]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiInHand]:
    """A yard in which seven jobs of Alice's have run and two of Bob's."""
    api = ApiInHand(tmp_path_factory.mktemp("yard"), "7xRTX4090,3xH100")
    for client, jobs in ((api.alice, 7), (api.bob, 2)):
        for _ in range(jobs):
            assert client.post("/v1/workloads", json=JOB).status_code == 201
            api.hand.clock.advance(SECOND)
    for _ in range(4):
        api.hand.settle()
        api.hand.clock.advance(6 * SECOND)
    yield api
    api.close()


def name_of(item: dict[str, Any]) -> str:
    if "sequence" in item:
        return f"{item['lease_id']} {item['sequence']}"
    return str(item.get("id") or item.get("uuid") or item["name"])


def pages(client: Any, path: str, limit: int, between: Callable[[], object] = lambda: None, **more: str) -> list[str]:
    found: list[str] = []
    params: dict[str, Any] = {"limit": limit, **more}
    for _ in range(100):
        page = client.get(path, params=params).json()
        assert len(page["items"]) <= limit
        found += map(name_of, page["items"])
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]
        between()
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
def test_pages_of_any_size_give_the_whole_list_in_its_order(busy: ApiInHand, path: str, limit: int) -> None:
    whole = [name_of(item) for item in busy.operator.get(path, params={"limit": 500}).json()["items"]]
    assert whole
    assert len(set(whole)) == len(whole)
    assert pages(busy.operator, path, limit) == whole


def test_pages_are_ones_own(busy: ApiInHand) -> None:
    for path in ("/v1/workloads", "/v1/leases", "/v1/intervals"):
        alices, bobs, all_of_them = (pages(c, path, 2) for c in (busy.alice, busy.bob, busy.operator))
        assert bobs
        assert len(alices) > len(bobs)
        assert not set(alices) & set(bobs)
        assert set(alices) | set(bobs) == set(all_of_them)
        assert pages(busy.operator, path, 1, tenant="bob") == bobs


def test_what_is_added_while_one_pages_hides_and_repeats_nothing_that_was_there(busy: ApiInHand) -> None:
    def add() -> None:
        busy.hand.clock.advance(SECOND)
        assert busy.alice.post("/v1/workloads", json=JOB).status_code == 201
        busy.hand.settle()

    for path in ("/v1/workloads", "/v1/leases"):
        before = pages(busy.alice, path, 500)
        seen = pages(busy.alice, path, 2, add)
        assert len(seen) == len(set(seen))
        assert set(before) <= set(seen)


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_of_another_list_or_none_at_all_is_refused(busy: ApiInHand, problem_in_both: Any, path: str) -> None:
    others = [busy.operator.get(other, params={"limit": 1}).json()["next"] for other in LISTS if other != path]
    mine = busy.operator.get(path, params={"limit": 1}).json()["next"]
    for cursor in [*filter(None, others), "", "x", "AAAA", "=", "Ä", "a" * 5000, f"{mine or 'zz'}!"]:
        problem_in_both(
            lambda headers, cursor=cursor: busy.operator.get(path, params={"cursor": cursor}, headers=headers),
            400,
            "invalid_cursor",
        )


@pytest.mark.parametrize("sequence", ["9" * 30, "-1", "1.5", "x", "²"])
def test_a_cursor_made_up_from_a_real_one_is_refused(busy: ApiInHand, sequence: str) -> None:
    from gpuyard.api.asking import encode_cursor

    cursor = encode_cursor("intervals", "ls-0", sequence)
    refused = busy.alice.get("/v1/intervals", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


def listen(served: Any, headers: dict[str, str], after: int, enough: int) -> list[tuple[int, str]]:
    """`enough` events of the live stream; then the connection is broken."""
    found: list[tuple[int, str]] = []
    asked = {**headers, "Accept": "text/event-stream", "Last-Event-ID": str(after)}
    with httpx.stream("GET", f"{served.url}/v1/events", headers=asked, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for line in answer.iter_lines():
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                found.append((told["sequence"], told["tenant_id"]))
                if len(found) == enough:
                    break
    return found


def test_a_stream_that_breaks_again_and_again_loses_and_repeats_nothing(served: Any) -> None:
    """Two tenants write all the while; every few events the connection breaks and is made anew."""
    done = threading.Event()

    def write() -> None:
        for n in range(20):
            client = served.api.bob if n % 3 == 0 else served.api.alice
            client.post("/v1/workloads", json=JOB)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    heard: list[tuple[int, str]] = []
    while len(heard) < 13:
        after = heard[-1][0] if heard else 0
        heard += listen(served, served.alice, after, min(1 + len(heard) % 4, 13 - len(heard)))
    writer.join()
    assert done.is_set()
    items = served.api.alice.get("/v1/events?limit=500").json()["items"]
    assert heard == [(item["sequence"], item["tenant_id"]) for item in items]
    assert {tenant for _, tenant in heard} == {"tn-alice"}


def test_a_stream_tells_what_happens_while_it_listens(served: Any) -> None:
    last = served.api.alice.get("/v1/events?limit=500").json()["next"] or 0
    heard: list[tuple[int, str]] = []
    listener = threading.Thread(target=lambda: heard.extend(listen(served, served.alice, int(last), 1)))
    listener.start()
    served.api.bob.post("/v1/workloads", json=JOB)
    served.api.alice.post("/v1/workloads", json=JOB)
    listener.join(20)
    assert [tenant for _, tenant in heard] == ["tn-alice"]


def test_the_pages_of_events_go_on_where_the_last_one_ended(busy: ApiInHand) -> None:
    whole = busy.operator.get("/v1/events?limit=500").json()["items"]
    sequences = [item["sequence"] for item in whole]
    assert sequences == sorted(set(sequences))
    found: list[int] = []
    after: str | None = "0"
    while after is not None:
        page = busy.operator.get("/v1/events", params={"limit": 3, "after": after}).json()
        found += [item["sequence"] for item in page["items"]]
        after = page["next"]
    assert found == sequences


def test_a_stream_ends_when_its_token_is_revoked(served: Any) -> None:
    made = served.api.operator.post("/v1/tokens", json={"user": "guest", "tenant": "alice"}).json()
    headers = {"Authorization": f"Bearer {made['token']}", "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{served.url}/v1/events", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": gpuyard"
        assert served.api.operator.delete(f"/v1/tokens/{made['id']}").status_code == 204
        last = int(served.api.operator.get("/v1/events?limit=500").json()["next"])
        served.api.alice.post("/v1/workloads", json=JOB)
        told: list[dict[str, Any]] = []
        deadline = time.monotonic() + 10
        for line in lines:
            assert time.monotonic() < deadline, "it goes on"
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    assert all(event["sequence"] <= last for event in told)
