"""gpuyard incidents"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.sdk import incident_calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
INCIDENTS = typer.Typer(rich_markup_mode=None, help=t("incidents.help"), no_args_is_help=True)
APP.add_typer(INCIDENTS, name="incidents")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]
Which = Annotated[str, typer.Argument(metavar="INCIDENT", help=t("incidents.incident"))]


@INCIDENTS.command("list", help=t("incidents.list"))
def list_incidents(
    only_open: Annotated[bool, typer.Option("--open", help=t("incidents.only_open"))] = False,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help=t("incidents.limit"))] = 50,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        found = client.send(incident_calls.incidents(tenant, only_open, limit))["items"]
    if as_json:
        show_json(found)
        return
    if not found:
        say(t("incidents.none"))
        return
    columns = ["incident", "cause", "about", "what", "last_good", "closed", "state", "leases", "given_back"]
    rows = [
        (
            each["id"],
            t(f"incidents.cause.{each['cause']}"),
            about(each),
            each["what"],
            each["last_good_at"],
            each["closed_at"],
            t(f"incidents.state.{each['state']}"),
            len(each["leases"]),
            f"{each['given_back']} {each['currency']}",
        )
        for each in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


def about(found: incident_calls.Incident) -> str | None:
    """The hardware in one word: a card before its node."""
    return found["lease_id"] or found["card_uuid"] or found["node"]


@INCIDENTS.command("show", help=t("incidents.show"))
def show_incident(incident: Which, tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(incident_calls.incident(incident, tenant))
    if as_json:
        show_json(found)
        return
    rows = [
        (t("column.cause"), t(f"incidents.cause.{found['cause']}")),
        (t("column.state"), t(f"incidents.state.{found['state']}")),
        (t("column.about"), about(found)),
        (t("column.node"), found["node"]),
        (t("column.what"), found["what"]),
        (t("column.opened"), found["opened_at"]),
        (t("column.opened_by"), found["opened_by"]),
        (t("column.last_good"), found["last_good_at"]),
        (t("column.closed"), found["closed_at"]),
        (t("column.leases"), "\n".join(found["leases"])),
        (t("column.given_back"), f"{found['given_back']} {found['currency']}"),
    ]
    show_table([t("column.incident"), found["id"]], rows)


@INCIDENTS.command("open", help=t("incidents.open"))
def open_incident(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=t("incidents.what"))],
    card: Annotated[str | None, typer.Option(metavar="UUID", help=t("incidents.card"))] = None,
    node: Annotated[str | None, typer.Option(help=t("incidents.node"))] = None,
    lease: Annotated[str | None, typer.Option(help=t("incidents.lease"))] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help=t("incidents.since"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        opened = client.send(incident_calls.open_incident(what, card, node, lease, since))
    if as_json:
        show_json(opened)
    else:
        facts = {"incident": opened["id"], "leases": len(opened["leases"]), "since": opened["last_good_at"]}
        say(t("incidents.opened", **facts))


@INCIDENTS.command("close", help=t("incidents.close"))
def close_incident(
    incident: Which,
    at: Annotated[str | None, typer.Option(metavar="TIME", help=t("incidents.at"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        closed = client.send(incident_calls.close_incident(incident, at))
    if as_json:
        show_json(closed)
    else:
        given, currency = closed["given_back"], closed["currency"]
        leases = len(closed["leases"])
        say(t("incidents.is_closed", incident=closed["id"], amount=given, currency=currency, leases=leases))


@INCIDENTS.command("dismiss", help=t("incidents.dismiss"))
def dismiss_incident(incident: Which, as_json: AsJson = False) -> None:
    with connect() as client:
        dismissed = client.send(incident_calls.dismiss_incident(incident))
    if as_json:
        show_json(dismissed)
    else:
        say(t("incidents.is_dismissed", incident=dismissed["id"]))
