"""Document: an invoice or a credit note, numbered, immutable, and worth exactly the sum of its lines.

Lines are in millionths of the currency. Tax is computed on each rounded line, and rounded as it was: half to even. The
sum is then rounded half to even to what can be paid, and the difference is shown, so that nothing is rounded out of
sight: subtotal + tax + rounding = total. What earlier documents of the tenant rounded is taken into account, so that
all of its totals together are never further from all of its lines than half of the smallest coin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

from gpuyard.billing.lines import RatedLine, What
from gpuyard.catalog.taxes import Party
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import NANO


class DocumentKind(StrEnum):
    """An invoice asks for money, a credit note gives some of it back."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A rated line as it was billed. `amount_nano` differs from the rated line's where it adjusts one."""

    line: RatedLine
    amount_nano: int
    adjusts: str = ""  # the invoice whose line, or whose month, this corrects
    tax_name: str = ""
    tax_ppm: int = 0
    tax_nano: int = 0
    reverse_charge: bool = False


@dataclass(frozen=True, slots=True)
class TaxTotal:
    """What the lines under one tax come to."""

    name: str
    rate_ppm: int
    reverse_charge: bool
    base_nano: int
    tax_nano: int


@dataclass(frozen=True, slots=True)
class Document:
    """An invoice or a credit note. `hash` is over everything else in it, the hash of the document before included."""

    number: str
    kind: DocumentKind
    tenant_id: str
    currency: str
    minor_digits: int
    from_us: int
    until_us: int  # exclusive
    issued_us: int
    seller: Party
    buyer: Party
    lines: tuple[InvoiceLine, ...]
    taxes: tuple[TaxTotal, ...]
    subtotal_nano: int
    tax_nano: int
    carried_nano: int  # what the tenant's documents before this one rounded, all together
    rounding_nano: int
    total_nano: int
    previous_hash: str
    corrects: str = ""  # of a credit note: the invoice
    reason: str = ""
    hash: str = ""


Invoice = Document
CreditNote = Document


def sealed(document: Document) -> Document:
    """The document with its totals and its hash."""
    subtotal = sum(line.amount_nano for line in document.lines)
    tax = sum(line.tax_nano for line in document.lines)
    exact = subtotal + tax
    rounding = payable_nano(exact - document.carried_nano, document.minor_digits) - exact
    summed = replace(
        document,
        taxes=tax_totals(document.lines),
        subtotal_nano=subtotal,
        tax_nano=tax,
        rounding_nano=rounding,
        total_nano=exact + rounding,
        hash="",
    )
    return replace(summed, hash=hash_of(summed))


def payable_nano(exact_nano: int, minor_digits: int) -> int:
    """An amount rounded half to even to what can be paid."""
    minor = NANO // 10**minor_digits
    return round(Fraction(exact_nano, minor)) * minor


def tax_totals(lines: Iterable[InvoiceLine]) -> tuple[TaxTotal, ...]:
    """The lines' taxes by name and rate."""
    sums: dict[tuple[str, int, bool], tuple[int, int]] = {}
    for line in lines:
        if line.tax_name:
            key = (line.tax_name, line.tax_ppm, line.reverse_charge)
            base, tax = sums.get(key, (0, 0))
            sums[key] = base + line.amount_nano, tax + line.tax_nano
    return tuple(TaxTotal(*key, *sums[key]) for key in sorted(sums))


def canonical(value: Mapping[str, object]) -> bytes:
    """The one byte form of a document: keys sorted, no spaces, integers only, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def plain(document: Document) -> dict[str, Any]:
    """A document as plain values."""
    return asdict(document)


def hash_of(document: Document) -> str:
    """SHA-256 over the canonical form without the hash itself."""
    values = plain(document)
    del values["hash"]
    return hashlib.sha256(canonical(values)).hexdigest()


def from_plain(values: Mapping[str, Any]) -> Document:
    """What `plain` was given, from JSON."""
    found: dict[str, Any] = {
        **values,
        "kind": DocumentKind(values["kind"]),
        "seller": _party(values["seller"]),
        "buyer": _party(values["buyer"]),
        "lines": tuple(_line(line) for line in values["lines"]),
        "taxes": tuple(TaxTotal(**tax) for tax in values["taxes"]),
    }
    return Document(**found)


def must_hold(documents: Sequence[Document]) -> None:
    """Checks a yard's documents in the order of issue: every hash, every link to the one before, every sum.

    Raises YardError `not_genuine`.
    """
    previous = ""
    carried: dict[str, int] = {}
    for document in documents:
        if hash_of(document) != document.hash:
            raise YardError("not_genuine", number=document.number, problem="hash")
        if document.previous_hash != previous:
            raise YardError("not_genuine", number=document.number, problem="chain")
        if sealed(document) != document or document.carried_nano != carried.get(document.tenant_id, 0):
            raise YardError("not_genuine", number=document.number, problem="sum")
        carried[document.tenant_id] = document.carried_nano + document.rounding_nano
        previous = document.hash


def _party(values: Mapping[str, Any]) -> Party:
    found: dict[str, Any] = {**values, "address": tuple(values["address"])}
    return Party(**found)


def _line(values: Mapping[str, Any]) -> InvoiceLine:
    line: dict[str, Any] = {**values["line"]}
    line |= {"what": What(line["what"]), "option": PurchaseOption(line["option"])}
    line["tags"] = tuple((key, value) for key, value in line["tags"])
    found: dict[str, Any] = {**values, "line": RatedLine(**line)}
    return InvoiceLine(**found)
