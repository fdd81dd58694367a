"""Making documents: an invoice of what is not yet billed, and credit notes on what is.

Billed is always the difference between what is known and what all invoices so far have billed, line by line. So nothing
is billed twice, a late interval changes nothing that was issued, and the difference appears in the next invoice as an
adjustment that names the invoice it corrects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gpuyard.billing.invoices import Document, DocumentKind, InvoiceLine, sealed
from gpuyard.billing.lines import RatedLine, round_micro
from gpuyard.catalog.currencies import minor_digits
from gpuyard.catalog.price_terms import WHOLE_PPM
from gpuyard.catalog.taxes import Party, TaxTable
from gpuyard.model.errors import YardError
from gpuyard.model.times import day_of


@dataclass(frozen=True, slots=True)
class Heading:
    """What a document is, before it has lines."""

    number: str
    tenant_id: str
    tenant_name: str
    currency: str
    from_us: int
    until_us: int
    issued_us: int
    previous_hash: str


@dataclass(frozen=True, slots=True)
class Billed:
    """What invoices so far billed for one rated line, and the first one that did."""

    amount_nano: int
    first: str
    line: RatedLine


def billed(documents: Iterable[Document]) -> dict[str, Billed]:
    """By the rated line's id. Credit notes do not count: what they give back stays given back."""
    found: dict[str, Billed] = {}
    for document in documents:
        if document.kind is DocumentKind.CREDIT_NOTE:
            continue
        for each in document.lines:
            known = found.get(each.line.id)
            before = known.amount_nano if known else 0
            first = known.first if known else document.number
            found[each.line.id] = Billed(before + each.amount_nano, first, each.line)
    return found


def invoice(heading: Heading, lines: Iterable[RatedLine], before: Sequence[Document], taxes: TaxTable) -> Document:
    """The tenant's invoice up to `until_us`, given all of its documents so far in the order of issue.

    Raises YardError `currency_mismatch` for a line in another currency, `nothing_to_invoice` where nothing is new.
    """
    buyer = taxes.buyer(heading.tenant_id, heading.tenant_name)
    last_day = day_of(heading.until_us - 1)
    known = billed(before)
    due: list[InvoiceLine] = []
    seen: set[str] = set()
    for line in lines:
        if line.currency != heading.currency:
            raise YardError(
                "currency_mismatch", what=line.lease_id or line.id, found=line.currency, expected=heading.currency
            )
        if line.day > last_day:
            continue
        so_far = known.get(line.id)
        seen.add(line.id)
        if so_far is None or line.amount_nano != so_far.amount_nano:
            amount = line.amount_nano - (so_far.amount_nano if so_far else 0)
            adjusts = so_far.first if so_far else _adjusts(line, known.values(), heading, before)
            due.append(_taxed(line, amount, adjusts, taxes, buyer))
    for line_id, so_far in known.items():  # billed once, and not known any more
        if line_id not in seen and so_far.amount_nano and so_far.line.day <= last_day:
            due.append(_taxed(so_far.line, -so_far.amount_nano, so_far.first, taxes, buyer))
    if not due:
        raise YardError("nothing_to_invoice", tenant=heading.tenant_name, until=last_day)
    return sealed(_document(heading, DocumentKind.INVOICE, due, taxes.seller, buyer, before))


def credit_note(
    heading: Heading,
    of: Document,
    reason: str,
    before: Sequence[Document],
    amounts_nano: Mapping[str, int] | None = None,
) -> Document:
    """Gives back lines of an invoice: those named, by their rated line's id, by as much; or all that is left. `before`:
    all documents of the tenant so far.

    Raises YardError `not_creditable`: for a credit note, for more than was billed and not yet given back, for a line
    that is not in the invoice; `currency_mismatch`.
    """
    if of.kind is DocumentKind.CREDIT_NOTE:
        raise YardError("not_creditable", number=of.number, problem="credit_note")
    if of.currency != heading.currency:
        raise YardError("currency_mismatch", what=of.number, found=of.currency, expected=heading.currency)
    left = _left(of, before)
    wanted = {line_id: amount for line_id, (_, amount, _) in left.items()} if amounts_nano is None else amounts_nano
    if amounts_nano is None and sum(wanted.values()) <= 0:  # what it gave back itself counts against it
        raise YardError("not_creditable", number=of.number, problem="nothing_left")
    lines: list[InvoiceLine] = []
    for line_id, amount in wanted.items():
        if line_id not in left:
            raise YardError("not_creditable", number=of.number, problem="no_line", line=line_id[:64])
        billed_line, amount_left, tax_left = left[line_id]
        whole = amounts_nano is None and amount == amount_left  # its credits go with it
        if not whole and (amount < 0 or amount > max(0, amount_left)):
            raise YardError("not_creditable", number=of.number, problem="too_much", line=line_id)
        if amount:
            tax = tax_left if amount == amount_left else _tax(amount, billed_line.tax_ppm, billed_line.reverse_charge)
            lines.append(
                InvoiceLine(
                    billed_line.line,
                    -amount,
                    of.number,
                    billed_line.tax_name,
                    billed_line.tax_ppm,
                    -tax,
                    billed_line.reverse_charge,
                )
            )
    if not lines:
        raise YardError("not_creditable", number=of.number, problem="nothing_left")
    return sealed(_document(heading, DocumentKind.CREDIT_NOTE, lines, of.seller, of.buyer, before, of.number, reason))


def left_of(of: Document, before: Sequence[Document], line_ids: Sequence[str]) -> dict[str, int]:
    """What these lines of an invoice were billed for and is not yet given back. An unknown line counts as nothing here
    and is refused where it is credited."""
    left = _left(of, before)
    return {line_id: left[line_id][1] if line_id in left else 0 for line_id in line_ids}


def _left(of: Document, before: Sequence[Document]) -> dict[str, tuple[InvoiceLine, int, int]]:
    """By rated line what an invoice billed and its credit notes have not given back: line, amount, tax."""
    left = {each.line.id: (each, each.amount_nano, each.tax_nano) for each in of.lines}
    for note in before:
        for each in note.lines if note.corrects == of.number else ():
            line, amount, tax = left[each.line.id]
            left[each.line.id] = line, amount + each.amount_nano, tax + each.tax_nano
    return left


def _adjusts(line: RatedLine, known: Iterable[Billed], heading: Heading, before: Sequence[Document]) -> str:
    """The invoice that a line corrects which none has billed: the one that billed what a credit gives back, or else the
    one of its day."""
    if line.origin:
        of_that_day = (each for each in known if (each.line.lease_id, each.line.day) == (line.lease_id, line.day))
        billed_it = next((each.first for each in of_that_day if not each.line.origin), "")
        if billed_it:
            return billed_it
    if line.day >= day_of(heading.from_us):
        return ""
    covering = (
        document.number
        for document in before
        if document.kind is DocumentKind.INVOICE
        and day_of(document.from_us) <= line.day <= day_of(document.until_us - 1)
    )
    return next(covering, "")


def _taxed(line: RatedLine, amount_nano: int, adjusts: str, taxes: TaxTable, buyer: Party) -> InvoiceLine:
    found = taxes.rule_for(buyer, line.day)
    if found is None:
        return InvoiceLine(line, amount_nano, adjusts)
    rule, reverse = found
    tax = _tax(amount_nano, rule.rate_ppm, reverse)
    return InvoiceLine(line, amount_nano, adjusts, rule.name, rule.rate_ppm, tax, reverse)


def _tax(amount_nano: int, rate_ppm: int, reverse_charge: bool) -> int:
    return 0 if reverse_charge else round_micro(Fraction(amount_nano * rate_ppm, WHOLE_PPM))


def _document(
    heading: Heading,
    kind: DocumentKind,
    lines: Sequence[InvoiceLine],
    seller: Party,
    buyer: Party,
    before: Sequence[Document],
    corrects: str = "",
    reason: str = "",
) -> Document:
    return Document(
        number=heading.number,
        kind=kind,
        tenant_id=heading.tenant_id,
        currency=heading.currency,
        minor_digits=minor_digits(heading.currency),
        from_us=heading.from_us,
        until_us=heading.until_us,
        issued_us=heading.issued_us,
        seller=seller,
        buyer=buyer,
        lines=tuple(sorted(lines, key=lambda each: (each.adjusts != "", each.line.day, *map(str, each.line.key)))),
        taxes=(),
        subtotal_nano=0,
        tax_nano=0,
        carried_nano=sum(document.rounding_nano for document in before),
        rounding_nano=0,
        total_nano=0,
        previous_hash=heading.previous_hash,
        corrects=corrects,
        reason=reason,
    )
