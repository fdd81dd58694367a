"""Wallets over the API: what is held, told, taken, given back and stopped."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import QUARTER, ApiInHand
from gpuyard.billing.settling import WalletTerms
from gpuyard.control.reconciling import reconcile
from gpuyard.engines.activity import Activity
from gpuyard.hardware.activity import CardActivity
from gpuyard.model.tenants import Role
from gpuyard.store import ledger, reconciliation

MINUTE = 60_000_000
SECRET = "whsec_test"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path, "4xRTX4090")
    yield api
    api.close()


def poor(api: ApiInHand, credit: str) -> Any:
    assert api.operator.post("/v1/tenants", json={"name": "poor", "credit": credit}).status_code == 201
    return api.client(api.hand.tenant("poor"), Role.MEMBER)


def live(api: ApiInHand, minutes: int, step: int = MINUTE) -> None:
    for _ in range(minutes * MINUTE // step):
        api.hand.clock.advance(step)
        api.hand.settle()


def kinds(api: ApiInHand) -> list[str]:
    found = [item["kind"] for item in api.operator.get("/v1/events?limit=500").json()["items"]]
    assert len(found) < 500
    return found


def test_money_is_held_at_launch_spent_from_the_hold_and_let_go_at_the_end(api: ApiInHand) -> None:
    client = poor(api, "1.00")
    client.post("/v1/workloads", json={**QUARTER, "name": "box"})
    wallet = client.get("/v1/wallet").json()
    price = Decimal(client.get("/v1/offers").json()["items"][0]["price_per_hour"])
    assert price > 0
    assert Decimal(wallet["held"]) > 0
    assert Decimal(wallet["available"]) == Decimal("1.00") - Decimal(wallet["held"])
    assert wallet["balance"] == "1.000000000"
    api.hand.settle()
    live(api, 13)
    running = client.get("/v1/wallet").json()
    assert Decimal(running["held"]) > 0
    assert running["runway_seconds"] > 0
    client.post("/v1/workloads/box/stop")
    live(api, 1, MINUTE // 12)
    after = client.get("/v1/wallet").json()
    assert Decimal(after["held"]) == 0
    assert Decimal(after["balance"]) == Decimal("1.00") - Decimal(client.get("/v1/bill").json()["total"])
    told = client.get("/v1/transfers?limit=500").json()["items"]
    assert {"opening", "hold", "post", "void"} <= {each["kind"] for each in told}
    done = api.operator.post("/v1/reconciliation").json()
    assert (done["faults"], done["discrepancies"], done["without_node_record"]) == ([], [], 0)
    assert done["scheduler_seconds"] == done["billed_seconds"] == done["node_seconds"] != "0.000000"


def test_alerts_then_a_stop_then_the_disk_is_kept_and_then_it_goes(api: ApiInHand) -> None:
    api.hand.yard.wallet_terms = WalletTerms(keep_disks_us=30 * MINUTE)
    client = poor(api, "0.20")
    client.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    live(api, 100)
    told = kinds(api)
    assert told.count("wallet.runway") == 3
    assert told.count("tenant.credit_exhausted") == 1
    assert client.get("/v1/workloads/box").json()["state"] == "stopped"
    assert len(api.hand.runtime.disks()) == 1
    assert client.get("/v1/wallet").json()["disks_kept_until"] is not None
    live(api, 30)
    gone = list(api.operator.get("/v1/events?limit=500").json()["items"])
    assert any(item["kind"] == "workload.removing" and item["data"]["reason"] == "unpaid" for item in gone)
    assert api.hand.runtime.disks() == frozenset()


def test_a_payment_told_twice_counts_once_and_told_otherwise_raises_the_alarm(api: ApiInHand) -> None:
    client = poor(api, "0")
    ask = lambda amount: api.operator.post("/v1/tenants/poor/top-ups", json={"amount": amount, "key": "k"})  # noqa: E731
    first, again, other = ask("5"), ask("5"), ask("6")
    assert [each.json().get("new") for each in (first, again)] == [True, False]
    assert (other.status_code, other.json()["code"]) == (409, "payment_conflict")
    assert client.get("/v1/wallet").json()["balance"] == "5.000000000"
    assert kinds(api).count("ledger.conflict") == 1


def test_a_payment_is_taken_back_once_and_a_refund_never(api: ApiInHand) -> None:
    client = poor(api, "0")
    paid = api.operator.post("/v1/tenants/poor/top-ups", json={"amount": "5"}).json()["transfer_id"]
    assert api.operator.post(f"/v1/transfers/{paid}/refund").json()["amount"] == "5.000000000"
    for wanted in (paid, f"refund:{paid}"):
        refused = api.operator.post(f"/v1/transfers/{wanted}/refund")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_refundable")
    assert client.post(f"/v1/transfers/{paid}/refund").status_code == 403
    assert client.get("/v1/wallet").json()["balance"] == "0.000000000"


def test_a_voucher_counts_once_until_it_expires_and_only_its_hash_is_kept(
    api: ApiInHand, problem_in_both: Callable[..., str]
) -> None:
    client = poor(api, "0")
    made = api.operator.post("/v1/vouchers", json={"amount": "3", "lasts": "1h"}).json()
    assert made["code"] not in str(api.everything())
    assert client.post("/v1/vouchers", json={"amount": "3"}).status_code == 403
    assert client.post("/v1/vouchers/redeem", json={"code": made["code"].lower()}).status_code == 200
    assert client.get("/v1/wallet").json()["balance"] == "3.000000000"
    late = api.operator.post("/v1/vouchers", json={"amount": "3", "lasts": "1h"}).json()
    api.hand.clock.advance(61 * MINUTE)
    for code, problem, status in (
        (made["code"], "voucher_used", 409),
        (late["code"], "voucher_expired", 409),
        ("NONE", "voucher_invalid", 404),
    ):
        problem_in_both(
            lambda headers, code=code: client.post("/v1/vouchers/redeem", json={"code": code}, headers=headers),
            status,
            problem,
        )


def stripe(api: ApiInHand, session: dict[str, object], secret: str = SECRET, off: int = 0, spoil: bytes = b"") -> Any:
    body = json.dumps({"type": "checkout.session.completed", "data": {"object": session}}).encode()
    moment = str(api.hand.clock.now_us() // 1_000_000 + off)
    signed = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={moment},v1={'0' * 64},v1={signed}"}
    return api.operator.post("/v1/payments/stripe", content=body + spoil, headers=headers)


def test_stripe_is_believed_only_by_its_signature_and_once(api: ApiInHand) -> None:
    client = poor(api, "0")
    paid: dict[str, object] = {
        "id": "cs_1",
        "payment_status": "paid",
        "amount_total": 1250,
        "currency": "usd",
        "client_reference_id": "poor",
    }
    assert stripe(api, paid).json()["code"] == "payments_off"
    api.hand.yard.stripe_secret = SECRET
    for refused in (stripe(api, paid, "other"), stripe(api, paid, off=-301), stripe(api, paid, spoil=b" ")):
        assert (refused.status_code, refused.json()["code"]) == (401, "payment_unverified")
    assert [stripe(api, paid).json()["new"] for _ in range(2)] == [True, False]
    assert client.get("/v1/wallet").json()["balance"] == "12.500000000"
    assert stripe(api, {**paid, "payment_status": "unpaid"}).json()["new"] is False
    for wrong in ({"client_reference_id": "nobody"}, {"currency": "jpy"}, {"amount_total": "5"}, {"amount_total": -5}):
        assert stripe(api, {**paid, "id": "cs_2", **wrong}).json()["code"] == "payment_refused"
    assert stripe(api, {**paid, "amount_total": 1}).json()["code"] == "payment_conflict"


def test_a_soft_budget_tells_and_a_hard_one_stops_and_refuses(api: ApiInHand) -> None:
    client = poor(api, "5")
    assert client.put("/v1/tenants/poor/budgets", json={"period": "day", "amount": "0.01"}).status_code == 200
    hard = {"period": "day", "amount": "0.05", "action": "hard"}
    assert client.put("/v1/tenants/poor/budgets", json=hard).status_code == 200
    client.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    live(api, 40)
    told = client.get("/v1/workloads/box").json()
    assert (told["state"], told["reason"]) == ("stopped", "budget_exhausted")
    assert kinds(api).count("budget.used_up") == 2
    assert client.post("/v1/workloads/box/start").json()["code"] == "budget_exhausted"
    assert all(each["used_up"] for each in client.get("/v1/budgets").json()["items"])
    assert client.delete("/v1/tenants/poor/budgets/day/hard").status_code == 204
    assert client.post("/v1/workloads/box/start").status_code == 202


def test_what_is_absent_is_never_idle_and_what_is_quiet_is_paused_and_saves(
    api: ApiInHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = poor(api, "5")
    policy = {"warn": "5m", "pause": "10m"}
    assert client.put("/v1/tenants/poor/idle-policy", json=policy).json()["signals"] == [
        "card",
        "memory",
        "terminal",
        "network",
    ]
    client.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    live(api, 20)
    assert client.get("/v1/idle").json()["idle"] == []  # the simulated runtime tells neither card nor network
    yard = api.hand.yard
    uuids = [card.uuid for node in api.hand.probe.probe().nodes for card in node.cards]
    yard.card_activity = lambda: dict.fromkeys(uuids, CardActivity(0, 1 << 30))
    monkeypatch.setattr(type(api.hand.runtime), "activity", lambda *_: Activity(0, 500), raising=False)
    live(api, 8)
    assert kinds(api).count("workload.idle") == 1
    live(api, 5)
    told = client.get("/v1/workloads/box").json()
    assert (told["state"], told["reason"]) == ("stopped", "idle")
    live(api, 60)
    assert Decimal(client.get("/v1/idle").json()["saved"]) > Decimal("0.05")
    yard.terminals[f"{client.get('/v1/leases').json()['items'][0]['id']}-2"] = 1
    assert client.post("/v1/workloads/box/start").status_code == 202
    live(api, 30)
    assert client.get("/v1/workloads/box").json()["state"] == "running"  # somebody is in it


def test_a_second_that_only_one_of_the_three_knows_is_an_incident_until_it_is_gone(api: ApiInHand) -> None:
    client = poor(api, "5")
    client.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    live(api, 3)
    client.post("/v1/workloads/box/stop")
    live(api, 2)
    store = api.hand.yard.store
    with store.write() as c:
        unit = c.exec_driver_sql("SELECT unit, ran_us, share_ppm FROM unit_times").one()
        reconciliation.note_units(c, {unit[0]: (unit[1] + 2_000_000, unit[2])})
    found = api.operator.post("/v1/reconciliation").json()["discrepancies"]
    assert [Decimal(each["node_seconds"]) - Decimal(each["billed_seconds"]) for each in found] == [Decimal(2)]
    reconcile(api.hand.yard, api.hand.clock.now_us(), everything=False)
    assert kinds(api).count("incident.opened") == 1
    with store.write() as c:
        reconciliation.note_units(c, {unit[0]: (unit[1], unit[2])})
    assert api.operator.post("/v1/reconciliation").json()["discrepancies"] == []
    assert kinds(api).count("incident.resolved") == 1
    with store.write() as c:
        c.exec_driver_sql("UPDATE accounts SET balance_nano = balance_nano + 1 WHERE id LIKE 'wallet:%'")
        assert len(ledger.balances(c)) > 2
    assert len(api.operator.post("/v1/reconciliation").json()["faults"]) == 2
