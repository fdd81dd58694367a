"""Invoices, commitments, costs and prices over the API of a yard whose time is in hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from api_in_hand import QUARTER, ApiInHand
from gpuyard.billing.ledger import faults as ledger_faults
from gpuyard.catalog import taxes
from gpuyard.catalog.price_history import PriceHistory, parse_history
from gpuyard.catalog.rows import Place
from gpuyard.control.invoicing import issue_monthly
from gpuyard.model.tenants import Role
from gpuyard.model.times import from_text, to_text
from gpuyard.store import ledger

HOUR = 3_600_000_000
BOOK: dict[str, Any] = {
    "currency": "USD",
    "storage_per_gib_hour": "0.0001",
    "cpu_only_per_hour": "0.02",
    "egress_per_gib": "0.09",
    "cards": {"RTX4090": {"on_demand": "0.60", "spot_floor": "0.10"}, "H100": {"on_demand": "3.00"}},
    "reserved": [{"years": 3, "discount": "45%"}, {"years": 1, "upfront": "all", "discount": "30%"}],
}


def history(**more: object) -> PriceHistory:
    return parse_history({**BOOK, **more}, Place("price_book_invalid", "prices.toml"))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    use(api, history())
    yield api
    api.close()


def use(api: ApiInHand, prices: PriceHistory) -> None:
    api.hand.yard.prices = prices
    api.hand.settle()


def run(api: ApiInHand, hours: int, name: str = "box", **more: object) -> None:
    """A quarter of a card for alice, for so many hours."""
    assert api.alice.post("/v1/workloads", json={**QUARTER, "name": name, **more}).status_code == 201
    api.hand.settle()
    for _ in range(hours):
        api.hand.clock.advance(HOUR)
        api.hand.settle()
    api.alice.post(f"/v1/workloads/{name}/stop")
    api.hand.settle()


def issue(api: ApiInHand, **body: object) -> Any:
    return api.operator.post("/v1/invoices", json={"tenant": "alice", **body})


def test_an_invoice_is_the_bill_and_nothing_is_invoiced_twice(api: ApiInHand) -> None:
    run(api, 3)
    made = issue(api)
    assert made.status_code == 201, made.text
    assert made.json()["subtotal"] == api.alice.get("/v1/bill").json()["total"]
    assert made.json()["number"] == "INV-000001"
    again = issue(api)
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_invoice")
    assert api.operator.get("/v1/invoice-check").json() == {"documents": 1, "genuine": True}


def test_a_month_is_invoiced_once_it_has_ended_and_by_itself_some_hours_later(api: ApiInHand) -> None:
    run(api, 2)
    month = to_text(api.hand.clock.now_us())[:7]
    early = issue(api, month=month)
    assert (early.status_code, early.json()["code"]) == (409, "period_open")
    api.hand.clock.advance(from_text("2026-10-01T05:00:00Z") - api.hand.clock.now_us())
    assert issue_monthly(api.hand.yard, api.hand.clock.now_us()) == 0
    api.hand.clock.advance(2 * HOUR)
    assert issue_monthly(api.hand.yard, api.hand.clock.now_us()) == 1
    assert issue_monthly(api.hand.yard, api.hand.clock.now_us()) == 0
    (made,) = api.alice.get("/v1/invoices").json()["items"]
    assert (made["period_from"][:10], made["period_until"][:10]) == ("2026-09-01", "2026-10-01")


def test_what_goes_on_running_is_adjusted_in_the_next_invoice(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    totals = []
    for _ in range(3):
        api.hand.clock.advance(HOUR)
        api.hand.loops._next_proof_us = 0
        api.hand.settle()
        made = issue(api).json()
        totals.append((Decimal(made["subtotal"]), made["adjustments"]))
    assert [adjustments for _, adjustments in totals] == [0, 1, 1]
    assert sum(subtotal for subtotal, _ in totals) == Decimal(api.alice.get("/v1/bill").json()["total"])


def test_a_document_never_changes_whoever_asks(api: ApiInHand) -> None:
    run(api, 1)
    issue(api)
    for statement in ("UPDATE documents SET body = '{}'", "DELETE FROM documents"):
        with pytest.raises(exc.IntegrityError), api.hand.yard.store.write() as c:
            c.exec_driver_sql(statement)


def test_every_form_of_a_document_says_the_same(api: ApiInHand) -> None:
    pytest.importorskip("fpdf")
    run(api, 2)
    number = issue(api).json()["number"]
    body = api.alice.get(f"/v1/invoices/{number}").json()
    rows = list(csv.DictReader(io.StringIO(api.alice.get(f"/v1/invoices/{number}?format=csv").text)))
    assert sum(Decimal(row["amount"]) for row in rows) * 10**9 == body["subtotal_nano"]
    assert [row["line_id"] for row in rows] == [row["line_id"] for row in rows if len(row["line_id"]) == 32]
    pdf = api.alice.get(f"/v1/invoices/{number}?format=pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF-")


def test_focus_adds_up_to_the_invoices_in_both_versions(api: ApiInHand) -> None:
    pytest.importorskip("pyarrow")
    run(api, 2)
    total = Decimal(issue(api).json()["total"])
    for version in ("1.2", "1.4"):
        rows = list(csv.DictReader(io.StringIO(api.alice.get(f"/v1/focus?version={version}").text)))
        assert sum(Decimal(row["BilledCost"]) for row in rows) == total
        assert api.alice.get(f"/v1/focus?version={version}&format=parquet").content[:4] == b"PAR1"


def test_a_tenant_sees_its_own_documents_and_no_others(api: ApiInHand) -> None:
    run(api, 1)
    number = issue(api).json()["number"]
    assert api.bob.get("/v1/invoices").json()["items"] == []
    hidden = api.bob.get(f"/v1/invoices/{number}")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "invoice_not_found")
    assert len(list(csv.DictReader(io.StringIO(api.bob.get("/v1/focus").text)))) == 0
    for refused in (
        api.alice.post("/v1/invoices", json={"tenant": "alice"}),
        api.alice.post(f"/v1/invoices/{number}/credit-notes", json={"reason": "please"}),
        api.alice.post("/v1/commitments", json={"tenant": "alice", "card_model": "RTX4090", "years": 3}),
        api.alice.get("/v1/invoice-check"),
        api.alice.get("/v1/margin"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_a_credit_note_gives_an_invoice_back_and_is_not_given_back_itself(api: ApiInHand) -> None:
    api.hand.yard.taxes = taxes.parse(
        {"seller": {"name": "Yard"}, "tax": [{"name": "VAT", "rate": "19%"}]}, Place(taxes.CODE, "t")
    )
    run(api, 4)
    made = issue(api).json()
    assert Decimal(made["tax"]) > 0
    note = api.operator.post(f"/v1/invoices/{made['number']}/credit-notes", json={"reason": "slow"}).json()
    assert (note["kind"], note["corrects"], Decimal(note["total"])) == (
        "credit_note",
        made["number"],
        -Decimal(made["total"]),
    )
    for number, problem in ((made["number"], "nothing_left"), (note["number"], "credit_note")):
        again = api.operator.post(f"/v1/invoices/{number}/credit-notes", json={"reason": "again"})
        assert (again.status_code, again.json()["code"], again.json()["params"]["problem"]) == (
            409,
            "not_creditable",
            problem,
        )
    assert issue(api).json()["code"] == "nothing_to_invoice"
    assert api.operator.get("/v1/invoice-check").json()["documents"] == 2


def balances(api: ApiInHand) -> dict[str, int]:
    with api.hand.yard.store.read() as c:
        found = ledger.balances(c)
        assert ledger_faults(ledger.every(c), found) == []
    return found


def test_tax_and_credit_notes_stand_in_the_ledger_and_focus_adds_up_to_it(api: ApiInHand) -> None:
    vat = {"seller": {"name": "Yard"}, "tax": [{"name": "VAT", "rate": "19%"}]}
    api.hand.yard.taxes = taxes.parse(vat, Place(taxes.CODE, "t"))
    run(api, 3)
    made = issue(api).json()
    api.hand.clock.advance(HOUR)
    api.hand.settle()
    assert balances(api)["tax:yard:USD"] == int(Decimal(made["tax"]) * 10**9) > 0
    run(api, 2, "more")
    body = {"reason": "slow"}
    api.operator.post(f"/v1/invoices/{made['number']}/credit-notes", json=body)
    for name in ("box", "more"):
        api.alice.delete(f"/v1/workloads/{name}")
        api.hand.settle()
    api.hand.clock.advance(HOUR)
    api.hand.settle()
    issue(api)
    found = balances(api)
    earned = sum(balance for name, balance in found.items() if name.startswith(("revenue:", "tax:", "credits:")))
    assert -found["wallet:tn-alice:USD"] == earned  # a tenant that pays later owes what was earned and its tax
    documents = api.alice.get("/v1/invoices").json()["items"]
    rows = list(csv.DictReader(io.StringIO(api.alice.get("/v1/focus").text)))
    rounded = sum(Decimal(each["rounding"]) for each in documents)
    billed = sum(Decimal(row["BilledCost"]) for row in rows) - rounded
    assert int(billed * 10**9) == earned


def test_what_a_wallet_cannot_pay_is_given_up_as_bad_debt_once(api: ApiInHand) -> None:
    poor = api.hand.tenant("poor", credit_nano=10_000_000)
    client = api.client(poor, Role.MEMBER)
    assert client.post("/v1/workloads", json={**QUARTER, "name": "box"}).status_code == 201
    api.hand.settle()
    for _ in range(80):
        api.hand.clock.advance(10_000_000)
        api.hand.settle()
    assert client.get("/v1/workloads/box").json()["state"] == "stopped"
    client.delete("/v1/workloads/box")
    api.hand.settle()
    api.hand.clock.advance(10_000_000)
    api.hand.settle()
    owed = -Decimal(client.get("/v1/wallet").json()["balance"])
    assert owed > 0
    assert client.post("/v1/tenants/poor/write-off").status_code == 403
    given_up = api.operator.post("/v1/tenants/poor/write-off").json()
    assert Decimal(given_up["amount"]) == owed
    found = balances(api)
    assert (found["wallet:tn-poor:USD"], found["bad_debt:tn-poor:USD"]) == (0, -int(owed * 10**9))
    again = api.operator.post("/v1/tenants/poor/write-off")
    assert (again.status_code, again.json()["code"]) == (409, "not_refundable")
    assert Decimal(client.get("/v1/wallet").json()["balance"]) == 0


def test_a_reservation_covers_what_its_tenant_runs_and_its_rest_is_shown(api: ApiInHand) -> None:
    bought = api.operator.post("/v1/commitments", json={"tenant": "alice", "card_model": "rtx4090", "years": 3}).json()
    assert (bought["share"], bought["per_hour"], bought["total"]) == ("100%", "0.33", "8672.40")
    api.hand.clock.advance(HOUR)
    run(api, 4)
    by_option = {cost["group"]: cost for cost in api.alice.get("/v1/costs?by=what").json()["costs"]}
    assert Decimal(by_option["active"]["amount"]) < Decimal("0.20")  # less than two of four hours on demand
    assert Decimal(by_option["unused"]["effective"]) > 0
    assert by_option["unused"]["amount"] == "0.000000"
    assert Decimal(by_option["reservation"]["amount"]) > Decimal("0.33") * 4
    assert api.bob.get("/v1/commitments").json()["items"] == []
    assert [each["id"] for each in api.alice.get("/v1/commitments").json()["items"]] == [bought["id"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"card_model": "RTX4090", "years": 1}, "no_reservation"),
        ({"card_model": "L4", "years": 3}, "no_price"),
        ({"card_model": "RTX4O90", "years": 3}, "unknown_card_model"),
        ({"offer": "rtx4090-third", "years": 3}, "unknown_offer"),
        ({"years": 3}, "invalid_request"),
        ({"card_model": "RTX4090", "offer": "rtx4090-half", "years": 3}, "invalid_request"),
        ({"card_model": "RTX4090", "years": 2}, "invalid_request"),
    ],
)
def test_a_reservation_that_is_not_sold_is_refused(api: ApiInHand, body: dict[str, object], code: str) -> None:
    before = api.everything()
    assert api.operator.post("/v1/commitments", json={"tenant": "alice", **body}).json()["code"] == code
    assert api.everything() == before


def test_a_new_book_comes_into_force_by_itself_and_leaves_what_runs_alone(api: ApiInHand) -> None:
    turn = to_text(api.hand.clock.now_us() + 2 * HOUR)
    old = {key: value for key, value in BOOK.items() if key != "currency"}
    new = {**old, "cards": {"RTX4090": {"on_demand": "1.20"}}}
    versions = [{**old, "effective_from": "2026-01-01"}, {**new, "effective_from": turn}]
    use(api, parse_history({"currency": "USD", "version": versions}, Place("price_book_invalid", "p")))
    run(api, 4)
    prices = {line["price_per_hour"] for line in api.alice.get("/v1/bill").json()["lines"] if line["what"] == "active"}
    assert prices == {"0.15"}
    offers = {offer["name"]: offer["price_per_hour"] for offer in api.operator.get("/v1/offers").json()["items"]}
    assert offers["rtx4090-quarter"] == "0.30"
    assert "h100-full" not in offers
    changed = [
        event for event in api.operator.get("/v1/events?limit=500").json()["items"] if event["kind"] == "prices.changed"
    ]
    assert [event["subject"] for event in changed][-1] == turn


def test_tariffs_and_discounts_reach_the_bill_and_the_invoice_alike(api: ApiInHand) -> None:
    rules = {
        "tariff": [{"name": "always", "zone": "UTC", "from": "00:00", "until": "24:00", "discount": "50%"}],
        "discount": [{"tenant": "alice", "discount": "10%"}],
    }
    use(api, history(**rules))
    run(api, 2, labels={"team": "vision"})
    bill = api.alice.get("/v1/bill").json()
    assert {line["price_per_hour"] for line in bill["lines"] if line["what"] == "active"} == {"0.0675"}
    assert issue(api).json()["subtotal"] == bill["total"]
    costs = api.alice.get("/v1/costs?by=label&label=team").json()
    assert [cost["group"] for cost in costs["costs"]] == ["vision"]
    assert costs["total"] == bill["total"]
    assert Decimal(costs["costs"][0]["listed"]) > 2 * Decimal(costs["total"])


def test_costs_are_told_by_project_and_by_organisation(api: ApiInHand) -> None:
    run(api, 1)
    assert api.bob.post("/v1/workloads", json={**QUARTER, "name": "bobs"}).status_code == 201
    api.hand.settle()
    api.hand.clock.advance(2 * HOUR)
    api.hand.settle()
    assert api.operator.post("/v1/organisations", json={"name": "acme"}).status_code == 201
    assert api.operator.put("/v1/tenants/alice/organisation", json={"organisation": "acme"}).status_code < 300
    told = api.operator.get("/v1/costs?by=project").json()
    assert {cost["group"] for cost in told["costs"]} == {"acme/alice", "bob"}
    assert sum(Decimal(cost["amount"]) for cost in told["costs"]) == Decimal(told["total"])
    by_organisation = {c["group"]: c["amount"] for c in api.operator.get("/v1/costs?by=organisation").json()["costs"]}
    assert by_organisation["acme"] == api.alice.get("/v1/bill").json()["total"]
    assert [cost["group"] for cost in api.alice.get("/v1/costs?by=project").json()["costs"]] == ["acme/alice"]


def test_prices_of_an_offer_are_compared_by_the_book(api: ApiInHand) -> None:
    found = api.alice.get("/v1/prices/compare?offer=rtx4090-full&hours=8760").json()
    assert (found["cheapest"], found["on_demand_a_year"]) == ("reserved 3y none", "5256.00")
    assert found["beside"] == {
        "stopped_per_hour": "0.00",
        "storage_per_gib_hour": "0.0001",
        "cpu_only_per_hour": "0.02",
        "egress_per_gib": "0.09",
    }
    few = api.alice.get("/v1/prices/compare?offer=rtx4090-full&hours=100").json()
    assert few["cheapest"] == "on_demand"
    assert api.alice.get("/v1/prices/compare?offer=l4-full").json()["code"] == "no_price"


def test_a_month_is_forecast_from_whole_days_and_cards_show_what_they_earned(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json={**QUARTER, "name": "box"})
    api.hand.settle()
    for _ in range(5):
        api.hand.clock.advance(24 * HOUR)
        api.hand.loops._next_proof_us = 0
        api.hand.settle()
    found = api.alice.get("/v1/costs/forecast").json()
    assert (found["burn_a_day"], found["low"], found["high"]) == ("3.60", found["expected"], found["expected"])
    assert found["days_known"] >= 3
    margin = {row["card_model"]: row for row in api.operator.get("/v1/margin").json()["cards"]}
    assert Decimal(margin["RTX4090"]["revenue"]) > 17
    assert margin["RTX4090"]["energy_cost"] is None  # the book does not say what power costs
    assert (margin["RTX4090"]["energy_measured"], margin["RTX4090"]["margin"]) == ("0%", None)
    use(api, history(power_per_kwh="0.10", power_overhead="50%"))
    margin = {row["card_model"]: row for row in api.operator.get("/v1/margin").json()["cards"]}
    took = Decimal(margin["RTX4090"]["energy_kwh"])
    idle, limit = 27, 450  # watts, as the catalogue has them
    expected = 120 * Decimal(2 * idle + (limit - idle) / 4) / 1000  # five days of two cards, a quarter of one in use
    assert abs(took - expected) < Decimal("0.1")
    assert abs(Decimal(margin["RTX4090"]["energy_cost"]) - took * Decimal("0.15")) < Decimal("0.01")
    assert Decimal(margin["RTX4090"]["margin"]) < Decimal(margin["RTX4090"]["revenue"])
    assert Decimal(margin["H100"]["margin"]) < 0  # it idles and costs
    assert margin["H100"]["revenue"] == "0.000000"


def test_a_yard_that_is_killed_between_invoices_goes_on_with_its_chain(api: ApiInHand) -> None:
    run(api, 1)
    first = issue(api).json()
    api.hand.kill()
    api.app.state.yard = api.hand.yard
    run(api, 1, "other")
    second = issue(api).json()
    assert (second["number"], second["previous_hash"]) == ("INV-000002", first["hash"])
    assert json.loads(api.operator.get("/v1/invoices/INV-000002").text)["hash"] == second["hash"]
