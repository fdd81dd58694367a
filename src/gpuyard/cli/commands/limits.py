"""gpuyard organisations, gpuyard quotas, gpuyard geography"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.commands.access import document
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import access_calls as calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
ORGANISATIONS = typer.Typer(rich_markup_mode=None, help=t("organisations.help"), no_args_is_help=True)
QUOTAS = typer.Typer(rich_markup_mode=None, help=t("quotas.help"), no_args_is_help=True)
GEOGRAPHY = typer.Typer(rich_markup_mode=None, help=t("geography.help"), no_args_is_help=True)
APP.add_typer(ORGANISATIONS, name="organisations")
APP.add_typer(QUOTAS, name="quotas")
APP.add_typer(GEOGRAPHY, name="geography")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Amount = Annotated[int | None, typer.Option(min=0, help=t("quotas.amount"))]


@ORGANISATIONS.command("list", help=t("organisations.list"))
def list_organisations(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.organisations())["items"]
    if as_json:
        show_json(found)
        return
    columns = [t("column.organisation"), t("column.id"), t("column.tenants")]
    show_table(columns, [(one["name"], one["id"], ", ".join(one["tenants"])) for one in found])


@ORGANISATIONS.command("add", help=t("organisations.add"))
def add_organisation(name: Annotated[str, typer.Argument(help=t("organisations.name"))]) -> None:
    with connect() as client:
        print(client.send(calls.add_organisation(name))["id"])


@ORGANISATIONS.command("assign", help=t("organisations.assign"))
def assign(
    tenant: Annotated[str, typer.Argument(help=t("tenants.name"))],
    organisation: Annotated[str, typer.Argument(help=t("organisations.name"))],
) -> None:
    with connect() as client:
        client.send(calls.assign(tenant, organisation))


@QUOTAS.command("list", help=t("quotas.list"))
def list_quotas(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.quotas())["items"]
    if as_json:
        show_json(found)
        return
    columns = ["kind", "subject", "what", "held", "soft", "hard"]
    show_table([t(f"column.{name}") for name in columns], [[one[name] for name in columns] for one in found])


@QUOTAS.command("set", help=t("quotas.set"))
def put_quota(
    kind: Annotated[str, typer.Argument(metavar="organisation|project|user", help=t("access.kind"))],
    subject: Annotated[str, typer.Argument(help=t("access.subject"))],
    what: Annotated[
        str,
        typer.Argument(
            metavar="card_share_ppm|card_memory_bytes|storage_bytes|spend_per_hour_nano", help=t("quotas.what")
        ),
    ],
    soft: Amount = None,
    hard: Amount = None,
) -> None:
    with connect() as client:
        client.send(calls.put_quota(kind, subject, what, soft, hard))


@GEOGRAPHY.command("show", help=t("geography.show"))
def show_geography() -> None:
    with connect() as client:
        show_json(client.send(calls.geography()))


@GEOGRAPHY.command("class", help=t("geography.class"))
def put_class(
    name: Annotated[str, typer.Argument(help=t("geography.name"))],
    card: Annotated[list[str] | None, typer.Option(help=t("geography.card"))] = None,
    country: Annotated[list[str] | None, typer.Option(help=t("geography.country"))] = None,
) -> None:
    with connect() as client:
        client.send(calls.put_export_class(name, card or [], country or []))


@GEOGRAPHY.command("residency", help=t("geography.residency"))
def put_residency(
    name: Annotated[str | None, typer.Argument(help=t("geography.name"))] = None,
    region: Annotated[list[str] | None, typer.Option(help=t("geography.region"))] = None,
) -> None:
    with connect() as client:
        if name is None:
            show_json(client.send(calls.residency()))
        else:
            client.send(calls.put_residency_class(name, region or []))


@GEOGRAPHY.command("verify", help=t("geography.verify"))
def put_country(
    tenant: Annotated[str, typer.Argument(help=t("tenants.name"))],
    country: Annotated[str, typer.Argument(help=t("geography.country"))],
    evidence: Annotated[Path, typer.Option(help=t("geography.evidence"))],
    by: Annotated[str, typer.Option(help=t("geography.by"))],
    until: Annotated[str, typer.Option(help=t("geography.until"))],
) -> None:
    try:
        hashed = hashlib.sha256(evidence.read_bytes()).hexdigest()
    except OSError:
        raise YardError("file_not_found", path=evidence) from None
    with connect() as client:
        client.send(calls.put_country(tenant, country, by, hashed, until))


@GEOGRAPHY.command("networks", help=t("geography.networks"))
def put_networks(file: Annotated[Path, typer.Argument(help=t("geography.file"))]) -> None:
    found: dict[str, str | None] = {}
    for number, line in enumerate(document(file).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise YardError("invalid_request", reason="network_line", number=number)
        found[words[0]] = None if words[1] == "proxy" else words[1]
    with connect() as client:
        client.send(calls.put_networks(found))
