"""gpuyard users"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import age, say, show_json, show_table, t
from gpuyard.model.units import parse_duration
from gpuyard.sdk import security_calls as calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
USERS = typer.Typer(rich_markup_mode=None, help=t("users.help"), no_args_is_help=True)
APP.add_typer(USERS, name="users")
Name = Annotated[str, typer.Argument(help=t("tokens.user"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]
Keep = Annotated[str, typer.Option(metavar="TIME", help=t("keys.keep"))]


@USERS.command("list", help=t("users.list"))
def list_users(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.users())["items"]
    if as_json:
        show_json(found)
        return
    columns = [t(f"column.{name}") for name in ("user", "kind", "role", "tenant", "age", "state")]
    rows = [
        (
            x["user"],
            x["kind"],
            x["role"],
            x["tenant"],
            age(x["created_at"]),
            t("users.gone") if x["disabled"] else "",
        )
        for x in found
    ]
    show_table(columns, rows)


@USERS.command("add", help=t("users.add"))
def add_user(
    user: Name,
    role: Annotated[str, typer.Option(metavar="operator|member|viewer", help=t("tokens.role"))] = "member",
    tenant: Tenant = None,
    service: Annotated[bool, typer.Option("--service", help=t("users.service"))] = False,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        made = client.send(calls.add_user(user, role, tenant, "service" if service else "person"))
    if as_json:
        show_json(made)
    else:
        say(t("users.next_service" if service else "users.next", user=user))


@USERS.command("set-password", help=t("users.set_password"))
def set_password(user: Name, tenant: Tenant = None) -> None:
    password = ask_password(t("users.new_password"), confirm=True)
    with connect() as client:
        client.send(calls.set_password(user, tenant, password))
    say(t("users.password_set", user=user))


@USERS.command("change-password", help=t("users.change_password"))
def change_password() -> None:
    old = ask_password(t("users.old_password"), of="GPUYARD_OLD_PASSWORD")
    new = ask_password(t("users.new_password"), confirm=True)
    with connect() as client:
        client.send(calls.change_password(old, new))
    say(t("users.password_changed"))


@USERS.command("rotate-token", help=t("users.rotate_token"))
def rotate_token(user: Name, tenant: Tenant = None, keep: Keep = "1h", as_json: AsJson = False) -> None:
    with connect() as client:
        made = client.send(calls.rotate_token(user, tenant, parse_duration(keep) // 1_000_000))
    if as_json:
        show_json(made)
        return
    say(t("tokens.once"))
    print(made["token"])


@USERS.command("disable", help=t("users.disable"))
def disable_user(user: Name, tenant: Tenant = None) -> None:
    with connect() as client:
        client.send(calls.disable_user(user, tenant))
    say(t("users.disabled", user=user))


def ask_password(prompt: str, *, confirm: bool = False, of: str = "GPUYARD_PASSWORD") -> str:
    """From the environment, or typed unseen: never from the command line, which other users of a machine can see."""
    return os.environ.get(of) or str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))
