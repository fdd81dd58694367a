"""Calls about prices, invoices, commitments, costs and the spot market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict
from urllib.parse import quote

from gpuyard.sdk.calls import Call, params_of
from gpuyard.sdk.types import Page


class Choice(TypedDict):
    option: str
    by_unit: bool
    per_hour: str
    total: str
    total_a_year: str
    saving: str
    years: int
    term_years: int | None
    upfront: str | None
    upfront_amount: str | None
    discount: str | None
    from_hours_a_year: int | None


class Beside(TypedDict):
    stopped_per_hour: str
    storage_per_gib_hour: str
    cpu_only_per_hour: str | None
    egress_per_gib: str


class Comparison(TypedDict):
    beside: Beside | None
    offer: str | None
    currency: str
    hours_a_year: int
    years: int
    cheapest: str
    saving: str
    on_demand_a_year: str
    choices: list[Choice]


class Invoice(TypedDict):
    number: str
    kind: str
    tenant_id: str
    buyer: str
    currency: str
    period_from: str
    period_until: str
    issued_at: str
    subtotal: str
    tax: str
    rounding: str
    total: str
    lines: int
    adjustments: int
    corrects: str | None
    reason: str | None
    hash: str
    previous_hash: str | None


class InvoiceCheck(TypedDict):
    documents: int
    genuine: bool


class Commitment(TypedDict):
    id: str
    tenant_id: str
    card_model: str
    offer: str | None
    share: str
    years: int
    upfront: str
    start_at: str
    end_at: str
    currency: str
    per_hour: str
    total: str
    upfront_amount: str
    saving: str


class Cost(TypedDict):
    group: str
    amount: str
    effective: str
    listed: str
    card_hours: str


class Costs(TypedDict):
    currency: str
    by: str
    total: str
    costs: list[Cost]


class Forecast(TypedDict):
    currency: str
    month: str
    spent: str
    burn_a_day: str
    expected: str
    low: str | None
    high: str | None
    days_known: int


class Margin(TypedDict):
    card_model: str
    cards: int
    revenue: str
    utilisation: str
    energy_kwh: str | None
    energy_measured: str | None
    energy_cost: str | None
    margin: str | None
    margin_a_card: str | None
    break_even_hours: int | None


class Margins(TypedDict):
    currency: str
    month: str
    cards: list[Margin]


class SpotPrice(TypedDict):
    offer: str
    at: str
    price: str
    currency: str


class SpotRounds(TypedDict):
    rounds: list[dict[str, object]]


def compare_prices(offer: str, hours: int = 8760) -> Call[Comparison]:
    return Call("GET", "/v1/prices/compare", Comparison, params_of(offer=offer, hours=hours))


def invoices(tenant: str | None = None, limit: int = 100, cursor: str | None = None) -> Call[Page[Invoice]]:
    return Call("GET", "/v1/invoices", Page[Invoice], params_of(tenant=tenant, limit=limit, cursor=cursor))


def issue_invoice(tenant: str, month: str | None = None) -> Call[Invoice]:
    """Repeatable: what is invoiced once is not invoiced again."""
    return Call("POST", "/v1/invoices", Invoice, body={"tenant": tenant, "month": month})


def invoice(number: str, form: str = "json", language: str | None = None) -> Call[bytes]:
    """One document as `json`, `csv` or `pdf`."""
    path = f"/v1/invoices/{quote(number, safe='')}"
    return Call("GET", path, bytes, params_of(format=form, language=language))


def credit_invoice(number: str, reason: str, lines: Sequence[str] | None = None) -> Call[Invoice]:
    body: dict[str, object] = {"reason": reason, "lines": list(lines) if lines else None}
    path = f"/v1/invoices/{quote(number, safe='')}/credit-notes"
    return Call("POST", path, Invoice, body=body, repeatable=False)


def check_invoices() -> Call[InvoiceCheck]:
    return Call("GET", "/v1/invoice-check", InvoiceCheck)


def export_focus(
    version: str = "1.2", form: str = "csv", tenant: str | None = None, month: str | None = None
) -> Call[bytes]:
    """FOCUS rows as `csv` or `parquet`."""
    return Call("GET", "/v1/focus", bytes, params_of(version=version, format=form, tenant=tenant, month=month))


def commitments(tenant: str | None = None) -> Call[Page[Commitment]]:
    return Call("GET", "/v1/commitments", Page[Commitment], params_of(tenant=tenant))


def add_commitment(
    tenant: str,
    years: int,
    upfront: str = "none",
    card_model: str | None = None,
    offer: str | None = None,
    count: int = 1,
) -> Call[Commitment]:
    body: dict[str, object] = {
        "tenant": tenant,
        "years": years,
        "upfront": upfront,
        "card_model": card_model,
        "offer": offer,
        "count": count,
    }
    return Call("POST", "/v1/commitments", Commitment, body=body, repeatable=False)


def costs(
    by: str = "workload",
    label: str | None = None,
    tenant: str | None = None,
    from_: str | None = None,
    until: str | None = None,
) -> Call[Costs]:
    params = params_of(by=by, label=label, tenant=tenant, from_=from_, until=until)
    return Call("GET", "/v1/costs", Costs, params)


def forecast(tenant: str | None = None) -> Call[Forecast]:
    return Call("GET", "/v1/costs/forecast", Forecast, params_of(tenant=tenant))


def margin(month: str | None = None) -> Call[Margins]:
    return Call("GET", "/v1/margin", Margins, params_of(month=month))


def spot_prices(offer: str | None = None) -> Call[Page[SpotPrice]]:
    return Call("GET", "/v1/spot/prices", Page[SpotPrice], params_of(offer=offer))


def spot_rounds(offer: str, limit: int = 50) -> Call[SpotRounds]:
    return Call("GET", "/v1/spot/rounds", SpotRounds, params_of(offer=offer, limit=limit))
