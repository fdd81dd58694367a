"""What FOCUS requires of a row, for the columns that are written: a check of our own for where the validator of the
FinOps Foundation is not at hand, and for versions that it does not know. Written from the requirements of 1.2 and 1.4.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from gpuyard.billing.focus import COLUMNS, Export, Row

NEVER_NULL = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "ServiceCategory", "ServiceName", "ServiceSubcategory", "ChargeFrequency",
)  # fmt: skip
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {None, "Standard", "Dynamic", "Committed", "Other"},
    "CommitmentDiscountCategory": {None, "Spend", "Usage"},
    "CommitmentDiscountStatus": {None, "Used", "Unused"},
}
PRICED = (
    "ListUnitPrice",
    "ContractedUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "PricingCategory",
    "SkuId",
    "SkuPriceId",
)
ISSUERS = {
    "1.2": ("ProviderName", "PublisherName"),
    "1.4": ("ServiceProviderName", "HostProviderName", "InvoiceDetailId"),
}


def broken(found: Export) -> list[str]:
    """The rules that are not kept, each by row and column."""
    said = [f"columns of {found.version}"] if found.columns != COLUMNS[found.version] else []
    for number, row in enumerate(found.rows):
        said += [f"{number}: {problem}" for problem in _broken(row, found.version)]
    return said


def _broken(row: Row, version: str) -> list[str]:
    said = [f"{name} is null" for name in (*NEVER_NULL, *ISSUERS[version]) if row[name] is None]
    said += [f"{name} is {row[name]}" for name, allowed in ALLOWED.items() if row[name] not in allowed]
    said += [
        f"{name} is no decimal"
        for name in _with_type(row, "Cost", "Price", "Quantity")
        if not isinstance(row[name], Decimal)
    ]
    said += [
        f"{name} is no time"
        for name in _with_type(row, "PeriodStart", "PeriodEnd")
        if not isinstance(row[name], datetime)
    ]
    if said:
        return said
    category, correction = row["ChargeCategory"], row["ChargeClass"] == "Correction"
    if category in ("Usage", "Purchase") and not correction:
        said += [f"{name} is null" for name in PRICED if row[name] is None]
    if category in ("Tax", "Adjustment", "Credit"):
        said += [f"{name} is not null" for name in PRICED if row[name] is not None]
    unused = row["CommitmentDiscountStatus"] == "Unused"
    if category == "Usage" and not correction and (row["ConsumedQuantity"] is None) != unused:
        said.append("ConsumedQuantity")
    if category != "Usage" and row["ConsumedQuantity"] is not None:
        said.append("ConsumedQuantity")
    if (row["ConsumedQuantity"] is None) != (row["ConsumedUnit"] is None):
        said.append("ConsumedUnit")
    return said + _commitments(row, category == "Purchase") + _sums(row, correction)


def _with_type(row: Row, *endings: str) -> list[str]:
    return [name for name in row if name.endswith(endings) and row[name] is not None]


def _commitments(row: Row, purchase: bool) -> list[str]:
    said: list[str] = []
    names = (
        "CommitmentDiscountCategory",
        "CommitmentDiscountType",
        "CommitmentDiscountQuantity",
        "CommitmentDiscountUnit",
    )
    if row["CommitmentDiscountId"] is None:
        said += [f"{name} is not null" for name in (*names, "CommitmentDiscountStatus") if row[name] is not None]
    else:
        said += [f"{name} is null" for name in names if row[name] is None]
        if (row["CommitmentDiscountStatus"] is None) != purchase:
            said.append("CommitmentDiscountStatus")
        if purchase and (row["EffectiveCost"] != 0 or row["PricingCategory"] == "Committed"):
            said.append("a purchase that is effective itself")
        if not purchase and (row["BilledCost"] != 0 or row["PricingCategory"] != "Committed"):
            said.append("what is committed is billed")
    return said


def _sums(row: Row, correction: bool) -> list[str]:
    said: list[str] = []
    if row["BillingPeriodEnd"] <= row["BillingPeriodStart"] or row["ChargePeriodEnd"] <= row["ChargePeriodStart"]:  # type: ignore[operator]
        said.append("a period that does not end")
    if correction or row["PricingQuantity"] is None:
        return said
    for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
        if abs(row[price] * row["PricingQuantity"] - row[cost]) > Decimal("0.000001"):  # type: ignore[operator]
            said.append(f"{cost} is not {price} x PricingQuantity")
    return said
