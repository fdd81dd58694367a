"""Invoices, credit notes and FOCUS exports over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import money_schemas, money_views, schemas
from gpuyard.api.asking import Asking, Caller, decode_cursor, encode_cursor
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.billing import focus
from gpuyard.billing.invoices import Document, canonical, plain
from gpuyard.control import invoicing
from gpuyard.control.fonts import cjk_font
from gpuyard.control.months import Month
from gpuyard.model.errors import YardError
from gpuyard.store import documents

router = APIRouter(tags=["invoices"])

MonthQuery = Annotated[str | None, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
_CSV = "text/csv; charset=utf-8"
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/pdf": {"schema": {"type": "string", "format": "binary"}},
        },
        "description": "The document. Its JSON is the canonical form that its hash is over.",
    }
}
_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
        "description": "FOCUS rows.",
    }
}


@router.get("/invoices", responses={200: {"model": schemas.Page[money_schemas.InvoiceView]}})
async def list_invoices(
    caller: Caller, tenant: str | None = None, limit: Limit = 50, cursor: str | None = None
) -> Response:
    """Invoices and credit notes, newest first."""
    before = decode_cursor(cursor, "invoices", 1)

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = documents.listing(c, scope, _sequence(before), limit)
        more = encode_cursor("invoices", found[-1].sequence) if len(found) == limit else None
        return page([money_views.document_view(invoicing.read(each)) for each in found], more)

    return await caller.read(work)


@router.post("/invoices", status_code=201, responses={201: {"model": money_schemas.InvoiceView}})
async def issue_invoice(caller: Caller, body: money_schemas.InvoiceRequest) -> Response:
    """The invoice of a month that has ended, or of this month up to now. It is never changed afterwards."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        month = Month.parse(body.month) if body.month else None
        issued = invoicing.issue(caller.yard, caller.tenant(body.tenant), month, caller.identity.user)
        return answer(money_views.document_view(issued), 201)

    return await caller.write(work)


@router.get("/invoice-check", responses={200: {"model": money_schemas.InvoiceCheckView}})
async def check_invoices(caller: Caller) -> Response:
    """Works out every hash, link and sum of all documents again. Refused with `not_genuine` where one does not hold."""
    caller.must(Action.OPERATE_YARD, None)
    count = await caller.write(lambda: invoicing.check(caller.yard))
    return answer({"documents": count, "genuine": True})


@router.get("/invoices/{number}", responses=_FILES)
async def show_invoice(
    caller: Caller,
    number: str,
    form: Annotated[Literal["json", "csv", "pdf"], Query(alias="format")] = "json",
    language: Literal["en", "zh"] | None = None,
) -> Response:
    """One document: as canonical JSON, as CSV of its lines, or as PDF in a language."""

    def work() -> Response:
        with caller.yard.store.read() as c:
            document = _visible(caller, c, number)
        return _rendered(document, form, language or caller.language)

    return await caller.write(work)


@router.post("/invoices/{number}/credit-notes", status_code=201, responses={201: {"model": money_schemas.InvoiceView}})
async def add_credit_note(caller: Caller, number: str, body: money_schemas.CreditNoteRequest) -> Response:
    """Gives back lines of an invoice, or all that is left of it."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        note = invoicing.credit(caller.yard, number, body.reason, body.lines, caller.identity.user)
        return answer(money_views.document_view(note), 201)

    return await caller.write(work)


@router.get("/focus", responses=_EXPORT)
async def export_focus(
    caller: Caller,
    version: Literal["1.2", "1.4"] = "1.2",
    form: Annotated[Literal["csv", "parquet"], Query(alias="format")] = "csv",
    tenant: str | None = None,
    month: MonthQuery = None,
) -> Response:
    """What was invoiced, in the columns of FOCUS: all of it, or the documents of one month. Adds up to their totals."""

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        wanted = Month.parse(month) if month else None
        with caller.yard.store.read() as c:
            found = [invoicing.read(each) for each in documents.listing(c, scope)]
        chosen = [each for each in found if wanted is None or wanted.from_us < each.until_us <= wanted.until_us]
        export = focus.export(chosen, version)
        focus.must_agree(export, chosen)
        name = f"focus-{version}{f'-{month}' if month else ''}.{form}"
        if form == "csv":
            return _file(focus.to_csv(export).encode(), _CSV, name)
        from gpuyard.billing.focus_parquet import to_parquet  # an extra

        return _file(to_parquet(export), "application/vnd.apache.parquet", name)

    return await caller.write(work)


def _sequence(before: list[str] | None) -> int | None:
    """Raises YardError `invalid_cursor`."""
    if before is None:
        return None
    if not (before[0].isascii() and before[0].isdecimal() and len(before[0]) < 19):
        raise YardError("invalid_cursor", value=before[0][:80])
    return int(before[0])


def _visible(caller: Asking, c: Connection, number: str) -> Document:
    """A document that the caller may see; one of another tenant is as good as none.

    Raises YardError `invoice_not_found`.
    """
    document = invoicing.find(c, number)
    if caller.scope(None) not in (None, document.tenant_id):
        raise YardError("invoice_not_found", number=number[:64])
    return document


def _rendered(document: Document, form: str, language: str) -> Response:
    name = f"{document.number}.{form}"
    if form == "json":
        return _file(canonical(plain(document)), "application/json", name)
    if form == "csv":
        from gpuyard.billing.paper import to_csv

        return _file(to_csv(document).encode(), _CSV, name)
    from gpuyard.billing.paper_pdf import to_pdf  # an extra

    return _file(to_pdf(document, language, cjk_font()), "application/pdf", name)


def _file(body: bytes, kind: str, name: str) -> Response:
    return Response(body, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
