"""Documents as FOCUS rows (FinOps Open Cost and Usage Specification), versions 1.2 and 1.4 from one model.

A row per invoice line, a row per tax of a document and one for its rounding: billed costs add up to the documents'
totals. What a commitment covers is billed 0 and effective at its share of the commitment's price; the commitment is a
purchase of its own with an effective cost of 0. What corrects an earlier invoice is a Correction without quantities.

Quantities are hours or GiB to 12 decimals, as a microsecond is no decimal part of an hour: price x quantity agrees with
the cost to a millionth of the currency, which is where costs are rounded.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from gpuyard.billing.invoices import Document, InvoiceLine, TaxTotal
from gpuyard.billing.lines import RatedLine, What
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.times import from_text
from gpuyard.model.units import DAY_US, GIB, HOUR_US, NANO

Value = str | Decimal | datetime | None
Row = dict[str, Value]

_DECIMALS: Final = frozenset(
    (
        "BilledCost",
        "CommitmentDiscountQuantity",
        "ConsumedQuantity",
        "ContractedCost",
        "ContractedUnitPrice",
        "EffectiveCost",
        "ListCost",
        "ListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "PricingQuantity",
    )
)
_TIMES: Final = frozenset(("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"))
_COMMON: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "Tags",
)
# What differs between the versions. 1.4 has no ProviderName and no PublisherName any more.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "1.2": tuple(sorted((*_COMMON, "ProviderName", "PublisherName"))),
    "1.4": tuple(sorted((*_COMMON, "ContractApplied", "HostProviderName", "InvoiceDetailId", "ServiceProviderName"))),
}
_USAGE: Final = frozenset((What.ACTIVE, What.STOPPED, What.MINIMUM, What.CPU_ONLY, What.EGRESS, What.UNUSED))
_SERVICES: Final[Mapping[What, tuple[str, str, str]]] = {
    What.STOPPED: ("Storage", "Other (Storage)", "Disk"),
    What.EGRESS: ("Networking", "Other (Networking)", "Egress"),
}
_COMPUTE: Final = ("Compute", "Other (Compute)", "Card slices")
_OTHER: Final = ("Other", "Other (Other)", "Account")


@dataclass(frozen=True, slots=True)
class Export:
    """Rows in the columns of one version."""

    version: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def billed(self) -> Decimal:
        """The sum that the documents come to."""
        return sum((row["BilledCost"] for row in self.rows if isinstance(row["BilledCost"], Decimal)), Decimal(0))


def export(documents: Iterable[Document], version: str) -> Export:
    """All rows of these documents. Raises YardError `invalid_pattern` for a version that is not written."""
    columns = COLUMNS.get(version)
    if columns is None:
        raise YardError("invalid_pattern", field="version", value=version, expected=" | ".join(COLUMNS))
    rows = [row for document in documents for row in _rows(document)]
    return Export(version, columns, tuple(_complete(row, columns) for row in rows))


def _complete(row: Row, columns: Sequence[str]) -> Row:
    """Every column; prices are made in the currency that is billed in."""
    priced: Row = {
        "PricingCurrency": row["BillingCurrency"],
        "PricingCurrencyContractedUnitPrice": row.get("ContractedUnitPrice"),
        "PricingCurrencyEffectiveCost": row["EffectiveCost"],
        "PricingCurrencyListUnitPrice": row.get("ListUnitPrice"),
    }
    return {column: priced.get(column) if column in priced else row.get(column) for column in columns}


def to_csv(found: Export) -> str:
    """Comma-separated, decimals with a point, times in UTC, nothing for null."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(found.columns)
    writer.writerows([_text(row[column]) for column in found.columns] for row in found.rows)
    return out.getvalue()


def kinds(columns: Sequence[str]) -> Mapping[str, str]:
    """`decimal`, `time` or `text` by column."""
    return {name: "decimal" if name in _DECIMALS else "time" if name in _TIMES else "text" for name in columns}


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{value:f}" if isinstance(value, Decimal) else value


def _rows(document: Document) -> list[Row]:
    head = _head(document)
    rows = [{**head, **_line(line)} for line in document.lines]
    rows += [{**head, **_tax(document, tax)} for tax in document.taxes if tax.tax_nano]
    if document.rounding_nano:
        rows.append({**head, **_rounding(document)})
    for number, row in enumerate(rows, 1):
        row["InvoiceDetailId"] = f"{document.number}/{number}"
    return rows


def _head(document: Document) -> Row:
    seller = document.seller.name or "gpuyard"
    return {
        "BillingAccountId": document.tenant_id,
        "BillingAccountName": document.buyer.name,
        "BillingCurrency": document.currency,
        "BillingPeriodStart": _moment(document.from_us),
        "BillingPeriodEnd": _moment(document.until_us),
        "InvoiceId": document.number,
        "InvoiceIssuerName": seller,
        "ProviderName": seller,
        "PublisherName": seller,
        "ServiceProviderName": seller,
        "HostProviderName": seller,
    }


def _line(each: InvoiceLine) -> Row:
    line = each.line
    category, subcategory, service = _SERVICES.get(line.what, _COMPUTE)
    start_us = from_text(f"{line.day}T00:00:00Z")
    row: Row = {
        "BilledCost": _money(each.amount_nano),
        "ChargeCategory": _category(line),
        "ChargeClass": "Correction" if each.adjusts else None,
        "ChargeDescription": _description(line),
        "ChargeFrequency": _frequency(line),
        "ChargePeriodStart": _moment(start_us),
        "ChargePeriodEnd": _moment(start_us + DAY_US),
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "ServiceName": service,
    }
    if line.workload_id:
        row |= {"ResourceId": line.workload_id, "ResourceName": line.workload_name, "ResourceType": "Workload"}
        row["Tags"] = json.dumps(dict(line.tags)) if line.tags else None
    if each.adjusts:
        return row | _costs(each.amount_nano, each.amount_nano, each.amount_nano)
    if line.what not in _USAGE and line.what is not What.RESERVATION:
        return row | _costs(line.amount_nano, line.amount_nano, line.amount_nano)
    return row | _priced(line)


def _priced(line: RatedLine) -> Row:
    quantity, unit = _quantity(line)
    unused, purchase = line.what is What.UNUSED, line.what is What.RESERVATION
    sku = line.offer or line.card_model or "storage"
    listed, contracted = _unit_prices(line)
    row: Row = {
        "ListUnitPrice": listed,
        "ContractedUnitPrice": contracted,
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "PricingCategory": _pricing(line),
        "SkuId": sku,
        "SkuMeter": {What.EGRESS: "Data transferred", What.STOPPED: "Disk time"}.get(line.what, "Slice time"),
        "SkuPriceId": f"{sku}/{line.option.value}/{line.what.value}",
        "SkuPriceDetails": _details(line),
        **_costs(_nano(listed, quantity), _nano(contracted, quantity), line.effective_nano),
    }
    if not unused and not purchase:
        row |= {"ConsumedQuantity": quantity, "ConsumedUnit": unit}
    if line.commitment_id:
        row |= {
            "CommitmentDiscountId": line.commitment_id,
            "CommitmentDiscountName": f"Reservation {line.commitment_id}",
            "CommitmentDiscountCategory": "Usage",
            "CommitmentDiscountType": "Reservation",
            "CommitmentDiscountQuantity": quantity,
            "CommitmentDiscountUnit": unit,
            "CommitmentDiscountStatus": None if purchase else "Unused" if unused else "Used",
            "ContractApplied": None if purchase else _applied(line, quantity),
        }
    return row


def _unit_prices(line: RatedLine) -> tuple[Decimal, Decimal]:
    if line.what is What.RESERVATION and line.duration_us == 0:  # paid upfront: one of it
        return _money(line.amount_nano), _money(line.amount_nano)
    if line.what is What.UNUSED:
        return Decimal(0), Decimal(0)  # nothing was used, so nothing would have been charged on demand
    return _money(line.list_price_per_hour_nano), _money(line.price_per_hour_nano)


def _quantity(line: RatedLine) -> tuple[Decimal, str]:
    if line.what is What.EGRESS:
        return _ratio(line.quantity_bytes, GIB), "GiB"
    if line.what is What.RESERVATION and line.duration_us == 0:
        return Decimal(1), "Reservations"
    return _ratio(line.duration_us, HOUR_US), "Hours"


def _category(line: RatedLine) -> str:
    if line.what is What.RESERVATION:
        return "Purchase"
    if line.what in (What.FAULT_CREDIT, What.RECLAIM_CREDIT):
        return "Credit"
    return "Usage" if line.what in _USAGE else "Adjustment"


def _frequency(line: RatedLine) -> str:
    if line.what is What.RESERVATION:
        return "One-Time" if line.duration_us == 0 else "Recurring"
    return "Usage-Based" if line.what in _USAGE else "One-Time"


def _pricing(line: RatedLine) -> str:
    if line.what is What.RESERVATION:
        return "Standard"  # buying a commitment is not itself covered by one
    if line.commitment_id:
        return "Committed"
    return "Dynamic" if line.option is PurchaseOption.SPOT else "Standard"


def _description(line: RatedLine) -> str:
    subject = line.workload_name or line.commitment_id
    return " ".join(part for part in (line.offer or line.card_model, line.what.value, subject) if part)


def _details(line: RatedLine) -> str | None:
    if not line.share_ppm:
        return None
    return json.dumps({"x_CardModel": line.card_model, "x_ShareOfCard": str(_ratio(line.share_ppm, 1_000_000))})


def _applied(line: RatedLine, quantity: Decimal) -> str:
    applied = {
        "ContractCommitmentId": line.commitment_id,
        "ContractCommitmentAppliedCost": float(_money(line.effective_nano)),
        "ContractCommitmentAppliedQuantity": float(quantity),
        "ContractCommitmentAppliedUnit": "Hours",
        "ContractId": line.commitment_id,
    }
    return json.dumps({"Elements": [applied]})


def _tax(document: Document, tax: TaxTotal) -> Row:
    category, subcategory, service = _OTHER
    return {
        "BilledCost": _money(tax.tax_nano),
        "ChargeCategory": "Tax",
        "ChargeDescription": f"{tax.name} {_ratio(tax.rate_ppm, 10_000)}%",
        "ChargeFrequency": "One-Time",
        **_whole_period(document),
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "ServiceName": service,
        **_costs(tax.tax_nano, tax.tax_nano, tax.tax_nano),
    }


def _rounding(document: Document) -> Row:
    category, subcategory, service = _OTHER
    return {
        "BilledCost": _money(document.rounding_nano),
        "ChargeCategory": "Adjustment",
        "ChargeDescription": "Rounding to what can be paid",
        "ChargeFrequency": "One-Time",
        **_whole_period(document),
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "ServiceName": service,
        **_costs(document.rounding_nano, document.rounding_nano, document.rounding_nano),
    }


def _whole_period(document: Document) -> Row:
    return {"ChargePeriodStart": _moment(document.from_us), "ChargePeriodEnd": _moment(document.until_us)}


def _costs(list_nano: int, contracted_nano: int, effective_nano: int) -> Row:
    return {
        "ListCost": _money(list_nano),
        "ContractedCost": _money(contracted_nano),
        "EffectiveCost": _money(effective_nano),
    }


def _nano(price: Decimal, quantity: Decimal) -> int:
    """Price x quantity to a millionth of the currency."""
    return int((price * quantity).quantize(Decimal("0.000001")) * NANO)


def _money(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def _ratio(value: int, unit: int) -> Decimal:
    return (Decimal(value) / unit).quantize(Decimal("1e-12")).normalize() + Decimal(0)


def _moment(at_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)


def must_agree(found: Export, documents: Iterable[Document]) -> None:
    """Raises YardError `not_genuine` where the billed costs are not the documents' totals."""
    for document in documents:
        rows = tuple(row for row in found.rows if row["InvoiceId"] == document.number)
        if Export(found.version, found.columns, rows).billed != _money(document.total_nano):
            raise YardError("not_genuine", number=document.number, problem="sum")
