"""Issuing invoices and credit notes: worked out aside, then written in one transaction or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.billing import issuing
from gpuyard.billing.invoices import Document, canonical, from_plain, must_hold, plain
from gpuyard.billing.posting import postings
from gpuyard.control.money import rated_lines
from gpuyard.control.months import Month
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Tenant
from gpuyard.model.times import to_text
from gpuyard.store import documents, events, ledger, meta, tenants

log = logging.getLogger(__name__)

TRIES = 5
MONTHLY_AFTER_US = 6 * 3600 * 1_000_000  # what is told late of the last hours of a month still finds its place
_CLOSED = "invoiced_until_us"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next document goes in the chain."""

    sequence: int
    previous_hash: str


def issue(yard: Yard, tenant: Tenant, month: Month | None, actor: str = "yard") -> Document:
    """The tenant's invoice for a month that has ended, or of this month up to now where none is given.

    Raises YardError `period_open`, `nothing_to_invoice`, `currency_mismatch`.
    """
    now_us = yard.clock.now_us()
    if month is not None and month.until_us > now_us:
        raise YardError("period_open", period=str(month), until=to_text(month.until_us))
    from_us, until_us = (month.from_us, month.until_us) if month else (Month.of(now_us).from_us, now_us)

    def make(c: Connection, at: Position) -> Document:
        before = [read(found) for found in documents.listing(c, tenant.id)]
        heading = issuing.Heading(
            number=f"INV-{at.sequence:06}",
            tenant_id=tenant.id,
            tenant_name=tenant.name,
            currency=tenant.currency,
            from_us=from_us,
            until_us=until_us,
            issued_us=now_us,
            previous_hash=at.previous_hash,
        )
        lines = rated_lines(c, yard.prices, tenant.id, until_us)
        return issuing.invoice(heading, lines, before, yard.taxes)

    return _write(yard, make, actor)


def credit(yard: Yard, number: str, reason: str, line_ids: Sequence[str] | None, actor: str) -> Document:
    """A credit note on an invoice: on these lines, or on all that is left of it.

    Raises YardError `invoice_not_found`, `not_creditable`.
    """
    now_us = yard.clock.now_us()

    def make(c: Connection, at: Position) -> Document:
        of = find(c, number)
        before = [read(found) for found in documents.listing(c, of.tenant_id)]
        heading = issuing.Heading(
            number=f"CN-{at.sequence:06}",
            tenant_id=of.tenant_id,
            tenant_name=of.buyer.name,
            currency=of.currency,
            from_us=of.from_us,
            until_us=of.until_us,
            issued_us=now_us,
            previous_hash=at.previous_hash,
        )
        amounts = issuing.left_of(of, before, line_ids) if line_ids else None
        return issuing.credit_note(heading, of, reason, before, amounts)

    return _write(yard, make, actor)


def issue_monthly(yard: Yard, now_us: int) -> int:
    """Every tenant's invoice of the month that ended last, once it is some hours past; how many were issued. What was
    cut short is taken up again: a tenant that has its invoice has nothing more to be invoiced."""
    month = Month.of(now_us).before()
    if now_us < month.until_us + MONTHLY_AFTER_US:
        return 0
    with yard.store.read() as c:
        if int(meta.get(c, _CLOSED) or 0) >= month.until_us:
            return 0
        waiting = tenants.listing(c)
    issued, whole = 0, True
    for tenant in waiting:
        try:
            issue(yard, tenant, month)
            issued += 1
        except YardError as error:
            if error.code in {"storage_full", "store_unavailable"}:
                raise
            if error.code != "nothing_to_invoice":  # one account's trouble must not hold up the others
                whole = False
                told = {"tenant": tenant.name, "month": str(month), "code": error.code}
                log.warning("invoice_refused", extra=told)
    if not whole:
        return issued
    with yard.store.write() as c:
        meta.put(c, _CLOSED, str(month.until_us))
    return issued


def find(c: Connection, number: str) -> Document:
    """Raises YardError `invoice_not_found`."""
    found = documents.find(c, number)
    if found is None:
        raise YardError("invoice_not_found", number=number[:64])
    return read(found)


def read(stored: documents.StoredDocument) -> Document:
    """A document from what the store keeps of it."""
    return from_plain(json.loads(stored.body))


def check(yard: Yard) -> int:
    """Checks every document ever issued, and how they follow each other; how many there are.

    Raises YardError `not_genuine`.
    """
    with yard.store.read() as c:
        all_of = [read(found) for found in documents.listing(c)]
    must_hold(all_of)
    return len(all_of)


def _write(yard: Yard, make: Callable[[Connection, Position], Document], actor: str) -> Document:
    """Makes a document on a reading of the store and keeps it where no other one came between."""
    for _ in range(TRIES):
        with yard.store.read() as c:
            sequence, previous = documents.newest(c)
            document = make(c, Position(sequence + 1, previous))
        with yard.store.write() as c:
            if documents.newest(c) != (sequence, previous):
                continue
            documents.insert(c, _stored(document, sequence + 1))
            told = Event(
                f"{document.kind.value}.issued",
                document.number,
                document.issued_us,
                document.tenant_id,
                actor,
                {"total_nano": document.total_nano, "currency": document.currency, "hash": document.hash},
            )
            ledger.post(c, postings(document))
            events.append(c, [told])
        return document
    raise YardError("store_unavailable", reason="other documents were issued at the same time, again and again")


def _stored(document: Document, sequence: int) -> documents.StoredDocument:
    return documents.StoredDocument(
        sequence=sequence,
        number=document.number,
        kind=document.kind.value,
        tenant_id=document.tenant_id,
        until_us=document.until_us,
        corrects=document.corrects,
        hash=document.hash,
        body=canonical(plain(document)).decode(),
    )
