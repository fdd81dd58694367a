"""gpuyard invoice, commitments, spot"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.host import installed
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import money_calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
INVOICE = typer.Typer(rich_markup_mode=None, help=t("invoice.help"), no_args_is_help=True)
COMMITMENTS = typer.Typer(rich_markup_mode=None, help=t("commitments.help"), no_args_is_help=True)
SPOT = typer.Typer(rich_markup_mode=None, help=t("spot.help"), no_args_is_help=True)
APP.add_typer(INVOICE, name="invoice")
APP.add_typer(COMMITMENTS, name="commitments")
APP.add_typer(SPOT, name="spot")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]
Number = Annotated[str, typer.Argument(help=t("invoice.number"))]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=t("invoice.output"))]


@INVOICE.command("list", help=t("invoice.list"))
def list_invoices(tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = list(client.pages(lambda cursor: money_calls.invoices(tenant, cursor=cursor)))
    if as_json:
        show_json(found)
    else:
        _show(found)


@INVOICE.command("issue", help=t("invoice.issue"))
def issue(
    tenant: Annotated[str, typer.Argument(help=t("option.tenant"))],
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help=t("invoice.month"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        issued = client.send(money_calls.issue_invoice(tenant, month))
    if as_json:
        show_json(issued)
    else:
        _show([issued])


@INVOICE.command("show", help=t("invoice.show"))
def show(
    number: Number,
    form: Annotated[str, typer.Option("--format", metavar="json|csv|pdf", help=t("invoice.format"))] = "csv",
    language: Annotated[str | None, typer.Option(metavar="en|zh", help=t("invoice.language"))] = None,
    output: Output = None,
) -> None:
    with connect() as client:
        body = client.send(money_calls.invoice(number, form, language))
    _put(body, output)


@INVOICE.command("credit", help=t("invoice.credit"))
def credit(
    number: Number,
    reason: Annotated[str, typer.Option(help=t("invoice.reason"))],
    line: Annotated[list[str] | None, typer.Option(metavar="ID", help=t("invoice.line"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        note = client.send(money_calls.credit_invoice(number, reason, line))
    if as_json:
        show_json(note)
    else:
        _show([note])


@INVOICE.command("check", help=t("invoice.check"))
def check(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(money_calls.check_invoices())
    if as_json:
        show_json(found)
    else:
        print(t("invoice.genuine", count=found["documents"]))


@INVOICE.command("export", help=t("invoice.export"))
def export(
    version: Annotated[str, typer.Option(metavar="1.2|1.4", help=t("invoice.version"))] = "1.2",
    form: Annotated[str, typer.Option("--format", metavar="csv|parquet", help=t("invoice.format"))] = "csv",
    tenant: Tenant = None,
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help=t("invoice.only_month"))] = None,
    output: Output = None,
) -> None:
    with connect() as client:
        body = client.send(money_calls.export_focus(version, form, tenant, month))
    _put(body, output)


def _show(found: list[money_calls.Invoice]) -> None:
    columns = ["number", "period", "buyer", "lines", "adjustments", "tax", "total", "corrects"]
    rows = [
        (
            each["number"],
            f"{each['period_from'][:10]} .. {each['period_until'][:16]}",
            each["buyer"],
            each["lines"],
            each["adjustments"],
            each["tax"],
            f"{each['total']} {each['currency']}",
            each["corrects"],
        )
        for each in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


def _put(body: bytes, output: Path | None) -> None:
    if output is None:
        if sys.stdout.isatty() and b"\0" in body[:4096]:
            raise YardError("invalid_request", reason="needs_output")
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(body)
    except OSError as error:
        raise YardError("file_unusable", path=str(output), reason=error.strerror or str(error)) from error
    say(t("invoice.written", path=output, size=len(body)))


@COMMITMENTS.command("list", help=t("commitments.list"))
def list_commitments(tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(money_calls.commitments(tenant))["items"]
    _show_commitments(found, as_json, one=False)


@COMMITMENTS.command("add", help=t("commitments.add"))
def add_commitment(
    tenant: Annotated[str, typer.Argument(help=t("option.tenant"))],
    years: Annotated[int, typer.Option(min=1, max=3, metavar="1|3", help=t("commitments.years"))],
    card: Annotated[str | None, typer.Option(help=t("commitments.card"))] = None,
    offer: Annotated[str | None, typer.Option(help=t("commitments.offer"))] = None,
    count: Annotated[int, typer.Option(min=1, help=t("commitments.count"))] = 1,
    upfront: Annotated[str, typer.Option(metavar="none|partial|all", help=t("commitments.upfront"))] = "none",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        bought = client.send(money_calls.add_commitment(tenant, years, upfront, card, offer, count))
    _show_commitments([bought], as_json, one=True)


def _show_commitments(found: list[money_calls.Commitment], as_json: bool, one: bool) -> None:
    if as_json:
        show_json(found[0] if one else found)
        return
    columns = ["id", "card_model", "offer", "share", "years", "upfront", "start", "end", "price", "total"]
    rows = [
        (
            each["id"],
            each["card_model"],
            each["offer"],
            each["share"],
            each["years"],
            each["upfront_amount"],
            each["start_at"][:10],
            each["end_at"][:10],
            f"{each['per_hour']}/h",
            f"{each['total']} {each['currency']}",
        )
        for each in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


@SPOT.command("prices", help=t("spot.prices"))
def spot_prices(
    offer: Annotated[str | None, typer.Argument(help=t("price.offer"))] = None, as_json: AsJson = False
) -> None:
    with connect() as client:
        found = client.send(money_calls.spot_prices(offer))["items"]
    if as_json:
        show_json(found)
        return
    rows = [(each["offer"], each["at"], f"{each['price']}/h {each['currency']}") for each in found]
    show_table([t(f"column.{name}") for name in ("offer", "at", "price")], rows)


@SPOT.command("rounds", help=t("spot.rounds"))
def spot_rounds(
    offer: Annotated[str, typer.Argument(help=t("price.offer"))],
    limit: Annotated[int, typer.Option(min=1, max=500, help=t("spot.limit"))] = 50,
) -> None:
    with connect() as client:
        for published in client.send(money_calls.spot_rounds(offer, limit))["rounds"]:
            show_json(published)


@SPOT.command("verify", help=t("spot.verify"))
def verify(file: Annotated[Path, typer.Argument(metavar="FILE", help=t("spot.file"))], as_json: AsJson = False) -> None:
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        rounds = [json.loads(line) for line in lines]
    except OSError as error:
        raise YardError("file_unusable", path=str(file), reason=error.strerror or str(error)) from error
    except ValueError:
        raise YardError("bids_invalid", problem="unreadable") from None
    found = [installed().sums.verify(published if isinstance(published, dict) else {}) for published in rounds]
    if as_json:
        show_json(found)
    else:
        print(t("spot.verified", count=len(found)))
