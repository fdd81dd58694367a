"""gpuyard keys"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import age, say, show_json, show_table, t
from gpuyard.model.units import parse_duration
from gpuyard.sdk import calls, security_calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
KEYS = typer.Typer(rich_markup_mode=None, help=t("keys.help"), no_args_is_help=True)
APP.add_typer(KEYS, name="keys")


@KEYS.command("list", help=t("keys.list"))
def list_keys(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.access_keys())["items"]
    if as_json:
        show_json(found)
        return
    columns = ["access_key", "user", "role", "tenant", "age", "last_used", "state"]
    rows = [
        (
            x["id"],
            x["user"],
            x["role"],
            x["tenant_id"],
            age(x["created_at"]),
            x["last_used_at"] and age(x["last_used_at"]),
            t("tokens.revoked") if x["revoked"] else "",
        )
        for x in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


@KEYS.command("create", help=t("keys.create"))
def create_key(
    user: Annotated[str, typer.Argument(help=t("tokens.user"))],
    role: Annotated[str, typer.Option(metavar="operator|member|viewer", help=t("tokens.role"))] = "member",
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        added = client.send(calls.add_access_key(user, role, tenant))
        url = client.target.url
    if as_json:
        show_json(added)
        return
    say(t("keys.once", url=url))
    print(f"AWS_ENDPOINT_URL={url}\nAWS_ACCESS_KEY_ID={added['id']}\nAWS_SECRET_ACCESS_KEY={added.get('secret', '')}")


@KEYS.command("rotate", help=t("keys.rotate"))
def rotate_key(
    key: Annotated[str, typer.Argument(help=t("keys.id"))],
    keep: Annotated[str, typer.Option(metavar="TIME", help=t("keys.keep"))] = "24h",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        made = client.send(security_calls.rotate_access_key(key, parse_duration(keep) // 1_000_000))
        url = client.target.url
    if as_json:
        show_json(made)
        return
    say(t("keys.once", url=url))
    print(f"AWS_ENDPOINT_URL={url}\nAWS_ACCESS_KEY_ID={made['id']}\nAWS_SECRET_ACCESS_KEY={made.get('secret', '')}")


@KEYS.command("revoke", help=t("keys.revoke"))
def revoke_key(key: Annotated[str, typer.Argument(help=t("keys.id"))]) -> None:
    with connect() as client:
        client.send(calls.revoke_access_key(key))
    say(t("keys.gone", id=key))
