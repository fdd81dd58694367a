"""gpuyard volumes"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.cli.volume_keys import key_of
from gpuyard.sdk import volume_calls as calls
from gpuyard.sdk.calls import Call

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
VOLUMES = typer.Typer(rich_markup_mode=None, help=t("volumes.help"), no_args_is_help=True)
KEY = typer.Typer(rich_markup_mode=None, help=t("volumes.key_help"), no_args_is_help=True)
APP.add_typer(VOLUMES, name="volumes")
VOLUMES.add_typer(KEY, name="key")

Name = Annotated[str, typer.Argument(help=t("volumes.name"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]
KeyFile = Annotated[Path, typer.Option("--key", metavar="FILE", help=t("volumes.key"))]


@KEY.command("new", help=t("volumes.key_new"))
def new_key() -> None:
    print(secrets.token_hex(32))
    if not sys.stdout.isatty():
        say(t("volumes.keep_key"))


@VOLUMES.command("list", help=t("volumes.list"))
def list_volumes(tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found: Any = client.send(calls.volumes(tenant))["items"]
    if as_json:
        show_json(found)
        return
    columns = [t(f"column.{name}") for name in ("volume", "state", "used_by")]
    show_table(columns, [(x["name"], t(f"volumes.is_{x['state']}"), ", ".join(x["used_by"])) for x in found])


@VOLUMES.command("create", help=t("volumes.create"))
def create_volume(name: Name, key: KeyFile, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _send(calls.create_volume(name, key_of(key), tenant), "volumes.created", name, as_json)


@VOLUMES.command("unlock", help=t("volumes.unlock"))
def unlock_volume(name: Name, key: KeyFile, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _send(calls.unlock_volume(name, key_of(key), tenant), "volumes.unlocked", name, as_json)


@VOLUMES.command("lock", help=t("volumes.lock"))
def lock_volume(name: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _send(calls.lock_volume(name, tenant), "volumes.locked", name, as_json)


@VOLUMES.command("rekey", help=t("volumes.rekey"))
def rekey_volume(
    name: Name,
    key: KeyFile,
    new: Annotated[Path, typer.Option("--new-key", metavar="FILE", help=t("volumes.new_key"))],
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    _send(calls.change_volume_key(name, key_of(key), key_of(new), tenant), "volumes.rekeyed", name, as_json)


@VOLUMES.command("rm", help=t("volumes.rm"))
def remove_volume(name: Name, tenant: Tenant = None) -> None:
    with connect() as client:
        client.send(calls.remove_volume(name, tenant))
    say(t("volumes.removed", name=name))


def _send(call: Call[Any], told: str, name: str, as_json: bool) -> None:
    with connect() as client:
        answer = client.send(call)
    if as_json:
        show_json(answer)
    else:
        say(t(told, name=name))
