"""gpuyard machines: what an operator decides about other machines, and sees of them"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import age, say, show_json, show_table, size, t
from gpuyard.model.units import parse_duration
from gpuyard.sdk import machine_calls as calls
from gpuyard.texts import language_of_environment, text

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
MACHINES = typer.Typer(rich_markup_mode=None, help=t("machines.help"), no_args_is_help=True)
APP.add_typer(MACHINES, name="machines")
Name = Annotated[str, typer.Argument(metavar="NAME", help=t("machines.which"))]
_WORD = {True: "ok", False: "missing", None: "unknown"}
_MARK = {True: "+", False: "-", None: "?"}


@MACHINES.command("invite", help=t("machines.invite"))
def invite(
    name: Annotated[str | None, typer.Option(help=t("machines.name"))] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help=t("machines.expires"))] = "1h",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        made = client.send(calls.invite(name, max(1, parse_duration(expires) // 1_000_000)))
    if as_json:
        show_json(made)
        return
    say(t("machines.run_there", until=made["expires_at"], invitation=made["id"]))
    named = "" if name is None else f" --name {name}"
    print(f"gpuyard machine join {made['url']}{named} --token {made['token']}")


@MACHINES.command("invitations", help=t("machines.invitations"))
def list_invitations(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.invitations())["items"]
    if as_json:
        show_json(found)
        return
    rows = [(one["id"], one["name"], one["state"], one["created_by"], one["expires_at"]) for one in found]
    show_table([t(f"column.{name}") for name in ("id", "name", "state", "user", "until")], rows)


@MACHINES.command("withdraw", help=t("machines.withdraw"))
def withdraw(invitation: Annotated[str, typer.Argument(metavar="ID", help=t("machines.which_invitation"))]) -> None:
    with connect() as client:
        client.send(calls.withdraw(invitation))
    say(t("machines.withdrawn", invitation=invitation))


@MACHINES.command("list", help=t("machines.list"))
def list_machines(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.machines())["items"]
    if as_json:
        show_json(found)
        return
    columns = ("name", "state", "cards", "heartbeat", "late", "until", "clock_ahead")
    rows = [
        (
            one["name"],
            t(f"machines.{one['state']}"),
            one["cards"],
            one["last_heartbeat_at"] and age(one["last_heartbeat_at"]),
            _late(one),
            one["certificate_until"] and one["certificate_until"][:19] + "Z",
            _ahead(one),
        )
        for one in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


@MACHINES.command("show", help=t("machines.show"))
def show_machine(name: Name, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.machine(name))
    if as_json:
        show_json(found)
    else:
        _show(found)


@MACHINES.command("revoke", help=t("machines.revoke"))
def revoke(name: Name, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.revoke(name))
    if as_json:
        show_json(found)
    else:
        say(t("machines.is_revoked", name=found["name"]))


@MACHINES.command("remove", help=t("machines.remove"))
def remove(name: Name) -> None:
    with connect() as client:
        client.send(calls.remove(name))
    say(t("machines.is_removed", name=name))


def _show(found: dict[str, Any]) -> None:
    facts = [
        ("name", found["name"]),
        ("id", found["spiffe_id"]),
        ("state", t(f"machines.{found['state']}")),
        ("invited_by", found["invited_by"]),
        ("until", found["certificate_until"]),
        ("heartbeat", found["last_heartbeat_at"]),
        ("late", _late(found)),
        ("clock_ahead", _ahead(found)),
        ("version", found["version"]),
        ("reported", found["reported_at"]),
    ]
    show_table([t("column.what"), t("column.value")], [(t(f"column.{key}"), value) for key, value in facts])
    told = found["inventory"]
    if told is None:
        print(t("machines.told_nothing"))
        return
    language = language_of_environment()
    print()
    for one in told["findings"]:
        print(f"{_MARK[one['ok']]} {text('doctor.' + one['name'] + '.' + _WORD[one['ok']], language, **one['params'])}")
    rows = [
        (card["uuid"], card["model"], size(card["memory_bytes"]), way["shape"], way["guarantee"],
         text(f"guarantee.{way['because']}", language))
        for card in told["cards"]
        for way in card["guarantees"]
    ]  # fmt: skip
    if rows:
        print()
        show_table([t(f"column.{name}") for name in ("card", "model", "memory", "slice", "guarantee", "why")], rows)


def _late(found: dict[str, Any]) -> str | None:
    return None if found["late"] is None else t("yes") if found["late"] else t("no")


def _ahead(found: dict[str, Any]) -> str | None:
    return None if found["clock_ahead_s"] is None else f"{found['clock_ahead_s']:+.1f}s"
