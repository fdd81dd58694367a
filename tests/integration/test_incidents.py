"""What hardware faults give back: from the last proven good second until the hardware is well again, and never twice."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import QUARTER, ApiInHand
from gpuyard.control.months import Month
from gpuyard.control.reconciling import reconcile
from gpuyard.model.times import from_text, to_text
from gpuyard.store import ledger

SECOND = 1_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    yield api
    api.close()


def live(api: ApiInHand, seconds: int) -> None:
    for _ in range(seconds // 10):
        api.hand.clock.advance(10 * SECOND)
        api.hand.settle()


def run(api: ApiInHand, name: str = "box", client: Any = None) -> Any:
    """A quarter of a card that runs; its lease."""
    client = client or api.alice
    assert client.post("/v1/workloads", json={**QUARTER, "name": name}).status_code == 201
    api.hand.settle()
    return client.get(f"/v1/workloads/{name}").json()["leases"][0]


def card_of(lease: Any) -> str:
    return lease["slices"][0]["card_uuid"]


def given_back(client: Any) -> Decimal:
    lines = client.get("/v1/bill").json()["lines"]
    return -sum((Decimal(each["amount"]) for each in lines if each["what"] == "fault_credit"), Decimal(0))


def credited_seconds(client: Any) -> Decimal:
    lines = client.get("/v1/bill").json()["lines"]
    return sum((Decimal(each["seconds"]) for each in lines if each["what"] == "fault_credit"), Decimal(0))


def posted_credits(api: ApiInHand) -> int:
    with api.hand.yard.store.read() as c:
        return -ledger.balances(c, ["credits:tn-alice:USD"])["credits:tn-alice:USD"]


def incidents(client: Any, **asked: object) -> list[Any]:
    return client.get("/v1/incidents", params=asked).json()["items"]


def test_a_lost_card_opens_an_incident_by_itself_and_closes_it_when_it_is_found_again(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    api.hand.probe.broken.add(card_of(lease))
    live(api, 60)
    (found,) = incidents(api.alice)
    assert (found["cause"], found["state"], found["leases"]) == ("card_lost", "open", [lease["id"]])
    assert found["opened_by"] is None  # that is the operators' business
    assert from_text(found["opened_at"]) - from_text(found["last_good_at"]) == 10 * SECOND  # the probe before
    api.hand.probe.broken.clear()
    live(api, 60)
    (closed,) = incidents(api.alice)
    assert closed["state"] == "repaired"
    down = from_text(closed["closed_at"]) - from_text(closed["last_good_at"])
    assert credited_seconds(api.alice) * SECOND == down == 70 * SECOND
    (line,) = [each for each in api.alice.get("/v1/bill").json()["lines"] if each["what"] == "fault_credit"]
    assert line["origin"] == closed["id"]
    assert Decimal(closed["given_back"]) == -Decimal(line["amount"])
    live(api, 100)
    assert credited_seconds(api.alice) == 70  # what runs on the repaired card is charged
    api.alice.post("/v1/workloads/box/stop")
    live(api, 20)
    assert posted_credits(api) == int(given_back(api.alice) * 10**9) > 0


def test_a_lost_node_hits_everything_on_it_and_is_one_incident(api: ApiInHand) -> None:
    run(api)
    run(api, "other", api.bob)
    live(api, 50)
    whole = api.hand.probe._whole
    api.hand.probe._whole = type(whole)(())
    live(api, 20)
    (found,) = incidents(api.operator)
    assert (found["cause"], found["card_uuid"], len(found["leases"])) == ("node_lost", None, 2)
    api.hand.probe._whole = whole
    live(api, 20)
    assert [each["state"] for each in incidents(api.operator)] == ["repaired"]
    assert credited_seconds(api.alice) == credited_seconds(api.bob) > 0


def test_a_yard_that_was_killed_knows_until_when_the_card_was_well(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    api.hand.probe.broken.add(card_of(lease))
    died_us = api.hand.clock.now_us()
    api.hand.clock.advance(3600 * SECOND)  # nobody looks
    api.hand.kill()
    api.app.state.yard = api.hand.yard
    api.hand.settle()
    (found,) = incidents(api.operator)
    assert died_us - 20 * SECOND <= from_text(found["last_good_at"]) <= died_us
    live(api, 10)
    assert credited_seconds(api.alice) >= 3600
    before = given_back(api.alice), posted_credits(api)
    for _ in range(3):  # whatever it had done is not done again
        api.hand.kill()
        api.app.state.yard = api.hand.yard
        api.hand.settle()
    assert (given_back(api.alice), posted_credits(api)) == before
    assert len(incidents(api.operator)) == 1
    done = reconcile(api.hand.yard, api.hand.clock.now_us(), everything=True)
    assert (done.faults, done.found) == ((), ())


def test_an_operator_reports_a_fault_of_the_past_and_only_what_ran_on_that_card_is_credited(api: ApiInHand) -> None:
    one = run(api, "one")
    wish = {**QUARTER, "name": "two", "slices": {"offer": "h100-full"}}
    assert api.alice.post("/v1/workloads", json=wish).status_code == 201
    api.hand.settle()
    live(api, 300)
    since = to_text(api.hand.clock.now_us() - 120 * SECOND)
    body = {"what": "Xid 79 in the log", "card": card_of(one), "last_good": since}
    opened = api.operator.post("/v1/incidents", json=body)
    assert opened.status_code == 201, opened.text
    assert opened.json()["leases"] == [one["id"]]
    at = to_text(api.hand.clock.now_us() - 60 * SECOND)
    assert api.operator.post(f"/v1/incidents/{opened.json()['id']}/close", json={"at": at}).status_code == 200
    live(api, 10)
    assert credited_seconds(api.alice) == 60
    assert posted_credits(api) == int(given_back(api.alice) * 10**9) > 0


def test_a_lease_that_goes_on_on_another_card_is_charged_there(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    body = {"what": "ECC", "card": card_of(lease)}
    incident = api.operator.post("/v1/incidents", json=body).json()["id"]
    live(api, 50)
    api.alice.post("/v1/workloads/box/stop")
    live(api, 20)
    api.hand.probe.broken.add(card_of(lease))
    live(api, 20)
    api.alice.post("/v1/workloads/box/start")
    live(api, 200)
    again = api.alice.get("/v1/workloads/box").json()["leases"][0]
    assert card_of(again) != card_of(lease)
    assert 40 <= credited_seconds(api.alice) <= 60
    api.operator.post(f"/v1/incidents/{incident}/close", json={})
    assert 40 <= credited_seconds(api.alice) <= 60


def test_two_incidents_about_the_same_time_give_it_back_once(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    for body in ({"card": card_of(lease)}, {"node": lease["node"]}, {"lease": lease["id"]}):
        opened = api.operator.post("/v1/incidents", json={"what": "x", **body})
        assert (opened.status_code, opened.json()["leases"]) == (201, [lease["id"]])
    live(api, 50)
    assert credited_seconds(api.alice) <= 50
    assert api.alice.get("/v1/costs?by=what").json()["total"] == api.alice.get("/v1/bill").json()["total"]


def test_what_is_dismissed_is_charged_after_all_and_the_ledger_holds(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    incident = api.operator.post("/v1/incidents", json={"what": "x", "lease": lease["id"]}).json()["id"]
    live(api, 50)
    api.operator.post(f"/v1/incidents/{incident}/close", json={})
    live(api, 10)
    assert posted_credits(api) > 0
    assert api.operator.post(f"/v1/incidents/{incident}/dismiss").json()["state"] == "dismissed"
    live(api, 10)
    assert (given_back(api.alice), posted_credits(api)) == (0, 0)
    done = reconcile(api.hand.yard, api.hand.clock.now_us(), everything=True)
    assert (done.faults, done.found) == ((), ())
    again = api.operator.post(f"/v1/incidents/{incident}/dismiss")
    assert (again.status_code, again.json()["code"]) == (409, "incident_closed")


def test_a_fault_told_after_the_invoice_is_an_adjustment_that_names_both(api: ApiInHand) -> None:
    lease = run(api)
    live(api, 100)
    api.alice.post("/v1/workloads/box/stop")
    api.hand.settle()
    ended_us = api.hand.clock.now_us()
    month = Month.of(ended_us)
    api.hand.clock.advance(month.until_us - ended_us + 1)
    first = api.operator.post("/v1/invoices", json={"tenant": "alice", "month": str(month)}).json()
    since, at = to_text(ended_us - 60 * SECOND), to_text(ended_us)
    body = {"what": "fan failed", "lease": lease["id"], "last_good": since}
    incident = api.operator.post("/v1/incidents", json=body).json()["id"]
    api.operator.post(f"/v1/incidents/{incident}/close", json={"at": at})
    second = api.operator.post("/v1/invoices", json={"tenant": "alice"})
    assert second.status_code == 201, second.text
    shown = api.alice.get(f"/v1/invoices/{second.json()['number']}", params={"format": "csv"}).text
    (row,) = [each for each in shown.splitlines() if "fault_credit" in each]
    assert incident in row
    assert first["number"] in row


def test_a_tenant_sees_what_hit_its_own_leases_and_nothing_else(api: ApiInHand) -> None:
    run(api)
    lease = run(api, "hers", api.bob)
    live(api, 20)
    incident = api.operator.post("/v1/incidents", json={"what": "x", "lease": lease["id"]}).json()["id"]
    live(api, 20)
    assert incidents(api.alice) == []
    hidden = api.alice.get(f"/v1/incidents/{incident}")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "incident_not_found")
    assert [each["leases"] for each in incidents(api.bob)] == [[lease["id"]]]
    for path in ("/v1/incidents", f"/v1/incidents/{incident}/close", f"/v1/incidents/{incident}/dismiss"):
        assert api.bob.post(path, json={"what": "x"} if path == "/v1/incidents" else {}).status_code == 403


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"what": "x"}, "invalid_request"),
        ({"what": "x", "card": "GPU-1", "node": "n"}, "invalid_request"),
        ({"what": "x", "card": "GPU-none"}, "incident_target_unknown"),
        ({"what": "x", "node": "nowhere"}, "incident_target_unknown"),
        ({"what": "x", "lease": "ls-none"}, "incident_target_unknown"),
        ({"what": "x", "node": "@node", "last_good": "yesterday"}, "invalid_time"),
        ({"what": "x", "node": "@node", "last_good": "2999-01-01T00:00:00Z"}, "incident_time"),
        ({"what": "x\n", "node": "@node"}, "invalid_request"),
    ],
)
def test_a_report_that_cannot_be_is_refused_and_changes_nothing(api: ApiInHand, body: Any, code: str) -> None:
    node = api.operator.get("/v1/nodes").json()["items"][0]["name"]
    before = api.everything()["incidents"]
    told = {key: node if value == "@node" else value for key, value in body.items()}
    assert api.operator.post("/v1/incidents", json=told).json()["code"] == code
    assert api.everything()["incidents"] == before


def test_the_same_hardware_is_reported_once_until_it_is_closed_and_closed_once(api: ApiInHand) -> None:
    node = api.operator.get("/v1/nodes").json()["items"][0]["name"]
    opened = api.operator.post("/v1/incidents", json={"what": "x", "node": node}).json()
    assert api.operator.post("/v1/incidents", json={"what": "y", "node": node}).json()["code"] == "incident_open"
    early = {"at": to_text(from_text(opened["last_good_at"]) - 1)}
    assert api.operator.post(f"/v1/incidents/{opened['id']}/close", json=early).json()["code"] == "incident_time"
    assert api.operator.post(f"/v1/incidents/{opened['id']}/close", json={}).status_code == 200
    assert api.operator.post(f"/v1/incidents/{opened['id']}/close", json={}).json()["code"] == "incident_closed"
    assert api.operator.post("/v1/incidents", json={"what": "y", "node": node}).status_code == 201


def test_a_difference_of_the_reconciliation_stands_among_the_incidents_and_gives_nothing_back(api: ApiInHand) -> None:
    run(api)
    live(api, 60)
    api.alice.post("/v1/workloads/box/stop")
    live(api, 20)
    with api.hand.yard.store.write() as c:
        c.exec_driver_sql("UPDATE unit_times SET ran_us = ran_us - 30000000")
    reconcile(api.hand.yard, api.hand.clock.now_us(), everything=True)
    (found,) = incidents(api.operator)
    assert (found["cause"], found["state"], found["last_good_at"]) == ("reconciliation", "open", None)
    assert given_back(api.alice) == 0
    with api.hand.yard.store.write() as c:
        c.exec_driver_sql("UPDATE unit_times SET ran_us = ran_us + 30000000")
    reconcile(api.hand.yard, api.hand.clock.now_us(), everything=True)
    assert [each["state"] for each in incidents(api.operator)] == ["repaired"]
