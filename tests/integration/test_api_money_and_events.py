"""Credit, bills, pages and the event stream, over the API alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.model.tenants import Role

SECOND = 1_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path, "8xRTX4090")
    yield api
    api.close()


def poor(api: ApiInHand, credit: str) -> Any:
    assert api.operator.post("/v1/tenants", json={"name": "poor", "credit": credit}).status_code == 201
    return api.client(api.hand.tenant("poor"), Role.MEMBER)


def test_without_credit_nothing_is_launched(api: ApiInHand) -> None:
    client = poor(api, "0")
    before = api.everything()
    refused = client.post("/v1/workloads", json=QUARTER)
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credit")
    assert api.everything() == before


def test_who_runs_out_is_stopped_with_the_disk_kept_and_goes_on_after_a_top_up(api: ApiInHand) -> None:
    client = poor(api, "0.05")
    made = client.post("/v1/workloads", json={**QUARTER, "name": "box"}).json()
    api.hand.settle()
    assert client.get("/v1/workloads/box").json()["state"] == "running"
    for _ in range(100):
        api.hand.clock.advance(60 * SECOND)
        api.hand.settle()
    stopped = client.get(f"/v1/workloads/{made['id']}").json()
    assert stopped["state"] == "stopped"
    assert api.hand.runtime.disks() == {f"{made['id']}-0"}
    spent = Decimal(client.get("/v1/tenants/poor").json()["spent"])
    assert Decimal("0.05") <= spent < Decimal("0.06")
    assert api.operator.post("/v1/tenants/poor/credit", json={"amount": "5.00"}).status_code == 200
    assert client.post("/v1/workloads/box/start").status_code == 202
    api.hand.settle()
    assert client.get("/v1/workloads/box").json()["state"] == "running"


@pytest.mark.parametrize("amount", ["", "abc", "NaN", "1e30", "0.0000000001", "0", "0.00"])
def test_money_that_is_none_is_refused(api: ApiInHand, amount: str) -> None:
    refused = api.operator.post("/v1/tenants/alice/credit", json={"amount": amount})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_price")


def test_a_bill_is_the_sum_of_its_lines_and_is_cut_by_workload_and_day(api: ApiInHand) -> None:
    for name in ("one", "two"):
        api.alice.post("/v1/workloads", json={**JOB, "name": name, "command": ["sleep", "5000"]})
    api.hand.settle()
    for _ in range(30):
        api.hand.clock.advance(3600 * SECOND)
        api.hand.settle()
    bill = api.alice.get("/v1/bill").json()
    assert Decimal(bill["total"]) == sum(Decimal(line["amount"]) for line in bill["lines"])
    parts = [api.alice.get(f"/v1/bill?workload={name}").json() for name in ("one", "two")]
    assert Decimal(bill["total"]) == sum(Decimal(part["total"]) for part in parts)
    days = {line["day"] for line in bill["lines"]}
    by_day = [api.alice.get(f"/v1/bill?day={day}").json()["total"] for day in sorted(days)]
    assert Decimal(bill["total"]) == sum(map(Decimal, by_day))
    seconds = sum(Decimal(str(line["seconds"])) for line in parts[0]["lines"] if line["what"] == "active")
    assert seconds == 5000


def every_page(client: Any, path: str, limit: int) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        suffix = f"&cursor={cursor}" if cursor else ""
        page = client.get(f"{path}limit={limit}{suffix}").json()
        assert len(page["items"]) <= limit
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


def test_pages_cover_everything_once(api: ApiInHand) -> None:
    made = {api.alice.post("/v1/workloads", json=JOB).json()["id"] for _ in range(23)}
    ids = [item["id"] for item in every_page(api.alice, "/v1/workloads?", 5)]
    assert len(ids) == len(set(ids)) == 23
    assert set(ids) == made
    cards = [item["uuid"] for item in every_page(api.alice, "/v1/cards?", 3)]
    assert len(cards) == len(set(cards)) == 8


def test_rows_that_come_while_one_pages_repeat_nothing(api: ApiInHand) -> None:
    before = {api.alice.post("/v1/workloads", json=JOB).json()["id"] for _ in range(6)}
    first = api.alice.get("/v1/workloads?limit=3").json()
    for _ in range(4):
        api.hand.clock.advance(SECOND)
        api.alice.post("/v1/workloads", json=JOB)
    rest = api.alice.get(f"/v1/workloads?limit=50&cursor={first['next']}").json()
    seen = [item["id"] for item in first["items"] + rest["items"]]
    assert len(seen) == len(set(seen))
    assert set(seen) == before


def read_events(text: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "id" in fields:
            found.append((int(fields["id"]), json.loads(fields["data"])["kind"]))
    return found


class StopsAfterTelling:
    """Says that the yard stops when it is asked for the third time: by then a stream has told what there is."""

    def __init__(self) -> None:
        self.asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 2


def stream(api: ApiInHand, client: Any, headers: dict[str, str]) -> list[tuple[int, str]]:
    """What the live stream says until the yard stops."""
    api.app.state.stopping = StopsAfterTelling()
    with client.stream("GET", "/v1/events", headers={"Accept": "text/event-stream", **headers}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    return read_events(text)


def test_the_event_stream_resumes_without_loss_or_repeat(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json={**JOB, "name": "a"})
    api.hand.settle()
    whole = stream(api, api.alice, {"Last-Event-ID": "0"})
    assert [kind for _, kind in whole][:1] == ["workload.pending"]
    middle = whole[len(whole) // 2][0]
    rest = stream(api, api.alice, {"Last-Event-ID": str(middle)})
    assert rest == [event for event in whole if event[0] > middle]
    listed = [(item["sequence"], item["kind"]) for item in every_page_of_events(api.alice)]
    assert listed == whole


def every_page_of_events(client: Any) -> list[Any]:
    found: list[Any] = []
    while page := client.get(f"/v1/events?limit=2&after={found[-1]['sequence'] if found else 0}").json()["items"]:
        found += page
    return found


@pytest.mark.parametrize("sequence", ["x", "-1", "1" * 30, "١"])
def test_a_place_in_the_stream_that_cannot_be_is_refused(api: ApiInHand, sequence: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": sequence.encode()}
    refused = api.alice.get("/v1/events", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


def test_a_tenant_hears_only_of_its_own(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json=JOB)
    api.hand.settle()
    assert stream(api, api.bob, {"Last-Event-ID": "0"}) == []
    assert stream(api, api.operator, {"Last-Event-ID": "0"}) != []


# Whoever signs in has no token yet; Stripe proves itself by the signature over its body.
WITHOUT_TOKEN = ("/v1/health", "/v1/ca", "/v1/login", "/v1/login/oidc", "/v1/payments/stripe", "/v1/machines/join")


def test_the_document_tells_of_every_operation_how_it_is_called_and_refused(api: ApiInHand) -> None:
    document = api.with_token(None).get("/v1/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            told = f"{method} {path}"
            assert operation.get("summary"), told
            assert operation.get("description"), told
            assert "default" in operation["responses"], told
            assert ("security" in operation) == (path not in WITHOUT_TOKEN), told
