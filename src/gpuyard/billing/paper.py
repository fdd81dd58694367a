"""A document as people read it: its lines added up by what they are for, and its totals, as text in a language.

The sums are of rounded lines, so a summary adds up to the document's total like the lines themselves.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass

from gpuyard.billing.invoices import Document, DocumentKind, InvoiceLine
from gpuyard.model.times import day_of, to_text
from gpuyard.model.units import SECOND_US, format_money, format_price
from gpuyard.texts import text

CSV_COLUMNS = (
    "document",
    "line_id",
    "day",
    "workload_id",
    "workload_name",
    "lease_id",
    "offer",
    "option",
    "what",
    "run",
    "seconds",
    "bytes",
    "price",
    "amount",
    "currency",
    "commitment_id",
    "origin",
    "adjusts",
    "tax_name",
    "tax_rate_percent",
    "tax",
    "reverse_charge",
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Lines of one workload, offer, purpose and price, added up."""

    workload: str
    offer: str
    what: str
    option: str
    adjusts: str
    price_nano: int
    seconds_us: int
    quantity_bytes: int
    amount_nano: int


def summaries(document: Document) -> tuple[Summary, ...]:
    """The document's lines added up, adjustments last."""
    sums: dict[tuple[str, str, str, str, str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for each in document.lines:
        row = sums[_group(each)]
        row[0] += each.line.duration_us
        row[1] += each.line.quantity_bytes
        row[2] += each.amount_nano
    found = (Summary(*key, *values) for key, values in sums.items())
    return tuple(sorted(found, key=lambda row: (row.adjusts, row.workload, row.offer, row.what, row.option)))


def _group(each: InvoiceLine) -> tuple[str, str, str, str, str, int]:
    line = each.line
    subject = line.workload_name or line.commitment_id
    return subject, line.offer, line.what.value, line.option.value, each.adjusts, line.price_per_hour_nano


def to_csv(document: Document) -> str:
    """Every line, for a spreadsheet. Amounts are decimals with six places; nothing is rounded again."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_row(document, each) for each in document.lines)
    return out.getvalue()


def _csv_row(document: Document, each: InvoiceLine) -> list[object]:
    line = each.line
    return [
        document.number,
        line.id,
        line.day,
        line.workload_id,
        _harmless(line.workload_name),
        line.lease_id,
        line.offer,
        line.option.value,
        line.what.value,
        line.run,
        f"{line.duration_us // SECOND_US}.{line.duration_us % SECOND_US:06d}",
        line.quantity_bytes,
        format_price(line.price_per_hour_nano),
        format_money(each.amount_nano),
        line.currency,
        line.commitment_id,
        line.origin,
        each.adjusts,
        _harmless(each.tax_name),
        f"{each.tax_ppm / 10_000:g}" if each.tax_name else "",
        format_money(each.tax_nano),
        "yes" if each.reverse_charge else "",
    ]


def _harmless(cell: str) -> str:
    """A name that a spreadsheet would take for a formula is shown as text."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


@dataclass(frozen=True, slots=True)
class Paper:
    """What is printed: the head, the table and the totals, as text."""

    title: str
    seller: tuple[str, ...]
    buyer: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    totals: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def lay_out(document: Document, language: str) -> Paper:
    """The document in a language."""

    def t(key: str, **params: object) -> str:
        return text(f"paper.{key}", language, **params)

    note = document.kind is DocumentKind.CREDIT_NOTE
    facts = [
        (t("number"), document.number),
        (t("issued"), to_text(document.issued_us)[:10]),
        (t("period"), f"{day_of(document.from_us)} – {day_of(document.until_us - 1)}"),
        (t("currency"), document.currency),
    ]
    if note:
        facts += [(t("corrects"), document.corrects), (t("reason"), document.reason or "--")]
    notes = [t("rounding_note")]
    notes += [t("reverse_charge_note")] if any(tax.reverse_charge for tax in document.taxes) else []
    notes.append(t("hash_note", hash=document.hash, previous=document.previous_hash or "--"))
    return Paper(
        title=t("credit_note" if note else "invoice"),
        seller=_party(document.seller.name, document.seller.address, document.seller.tax_id, t("tax_id")),
        buyer=_party(document.buyer.name, document.buyer.address, document.buyer.tax_id, t("tax_id")),
        facts=tuple(facts),
        columns=tuple(t(f"column.{name}") for name in ("for", "what", "quantity", "price", "amount")),
        rows=tuple(_row(row, language) for row in summaries(document)),
        totals=tuple(_totals(document, language)),
        notes=tuple(notes),
    )


def _party(name: str, address: tuple[str, ...], tax_id: str, label: str) -> tuple[str, ...]:
    return tuple(line for line in (name, *address, f"{label} {tax_id}" if tax_id else "") if line)


def _row(row: Summary, language: str) -> tuple[str, ...]:
    what = text(f"paper.what.{row.what}", language)
    if row.option != "on_demand":
        what = f"{what} ({text(f'paper.option.{row.option}', language)})"
    if row.adjusts:
        what = text("paper.adjusts", language, what=what, invoice=row.adjusts)
    if row.quantity_bytes:
        quantity, per = f"{row.quantity_bytes} B", "GiB"
    elif row.seconds_us == 0:
        quantity, per = "--", "h"
    else:
        quantity, per = f"{row.seconds_us // SECOND_US}.{row.seconds_us % SECOND_US:06d} s", "h"
    price = f"{format_price(row.price_nano)}/{per}" if row.price_nano else "--"
    subject = " · ".join(part for part in (row.workload, row.offer) if part) or "--"
    return subject, what, quantity, price, format_money(row.amount_nano)


def _totals(document: Document, language: str) -> list[tuple[str, str]]:
    found = [(text("paper.subtotal", language), format_money(document.subtotal_nano))]
    for tax in document.taxes:
        rate = f"{tax.rate_ppm / 10_000:g}%"
        key = "paper.reverse_charge" if tax.reverse_charge else "paper.tax"
        label = text(key, language, name=tax.name, rate=rate, base=format_money(tax.base_nano))
        found.append((label, format_money(tax.tax_nano)))
    if document.rounding_nano:
        found.append((text("paper.rounding", language), format_money(document.rounding_nano)))
    total = f"{format_money(document.total_nano, document.minor_digits)} {document.currency}"
    return [*found, (text("paper.total", language), total)]
