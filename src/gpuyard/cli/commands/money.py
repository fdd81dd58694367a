"""gpuyard bill, events"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import show_json, show_table, size, t
from gpuyard.sdk import calls, types

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]


@APP.command(help=t("bill.help"))
def bill(
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    workload: Annotated[str | None, typer.Option(help=t("bill.workload"))] = None,
    day: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help=t("bill.day"))] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help=t("bill.from"))] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help=t("bill.until"))] = None,
    by: Annotated[str, typer.Option(metavar="line|workload|day", help=t("bill.by"))] = "line",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        found = client.send(calls.bill(tenant, workload, day, from_, until))
    if as_json:
        show_json(found)
    elif by in ("workload", "day"):
        sums = found["by_workload"] if by == "workload" else found["by_day"]
        show_table([t(f"column.{by}"), t("column.amount")], [*sums.items(), (t("bill.total"), found["total"])])
    else:
        show_bill(found)


def show_bill(found: types.Bill) -> None:
    """A bill line by line, and its total."""
    columns = ["day", "workload", "offer", "what", "seconds", "price", "amount"]
    rows: list[tuple[object, ...]] = [
        (
            line["day"],
            line["workload_name"],
            line["offer"],
            _what(line),
            line["seconds"] if line["bytes"] is None else size(line["bytes"]),
            f"{line['price_per_hour']}/{'h' if line['bytes'] is None else 'GiB'}",
            line["amount"],
        )
        for line in found["lines"]
    ]
    rows.append((t("bill.total"), "", "", "", "", found["currency"], found["total"]))
    show_table(
        [t(f"column.{name}") for name in columns], [[cell if cell != "" else " " for cell in row] for row in rows]
    )


def _what(line: types.BillLine) -> str:
    told = t(f"bill.what.{line['what']}")
    return f"{told} ({line['origin']})" if line["origin"] else told


@APP.command(help=t("events.help"))
def events(
    after: Annotated[int, typer.Option(help=t("events.after"))] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=t("events.follow"))] = False,
    limit: Annotated[int, typer.Option(help=t("events.limit"))] = 100,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        if follow:
            for event in client.events(after):
                _show_event(event, as_json)
            return
        for event in client.send(calls.events(after, limit))["items"]:
            _show_event(event, as_json)


def _show_event(event: types.Event, as_json: bool) -> None:
    if as_json:
        show_json(event)
        return
    facts = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in event["data"].items())
    print(f"{event['sequence']:>6} {event['at']} {event['kind']:<22} {event['subject']} {facts}".rstrip(), flush=True)
