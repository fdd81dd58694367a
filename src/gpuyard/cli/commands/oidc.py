"""gpuyard oidc"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import show_json, show_table, t
from gpuyard.sdk import security_calls as calls
from gpuyard.sdk.access_calls import View

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
OIDC = typer.Typer(rich_markup_mode=None, help=t("oidc.help"), no_args_is_help=True)
APP.add_typer(OIDC, name="oidc")
Group = Annotated[str, typer.Argument(help=t("oidc.group"))]
Tenant = Annotated[str, typer.Option(help=t("option.tenant"))]


@OIDC.command("show", help=t("oidc.show"))
def show_oidc(as_json: AsJson = False) -> None:
    with connect() as client:
        _show(client.send(calls.oidc()), as_json)


@OIDC.command("set", help=t("oidc.set"))
def set_oidc(
    issuer: Annotated[str, typer.Argument(metavar="URL", help=t("oidc.issuer"))],
    client_id: Annotated[str, typer.Option(help=t("oidc.client_id"))],
    scopes: Annotated[str, typer.Option(help=t("oidc.scopes"))] = "openid email profile groups",
    user_claim: Annotated[str, typer.Option(help=t("oidc.user_claim"))] = "sub",
    groups_claim: Annotated[str, typer.Option(help=t("oidc.groups_claim"))] = "groups",
    as_json: AsJson = False,
) -> None:
    secret = os.environ.get("GPUYARD_OIDC_SECRET") or None  # not an option: others of this machine can see those
    with connect() as client:
        _show(client.send(calls.put_oidc(issuer, client_id, secret, scopes, user_claim, groups_claim)), as_json)


@OIDC.command("map", help=t("oidc.map"))
def map_group(
    group: Group,
    tenant: Tenant,
    role: Annotated[str, typer.Option(metavar="operator|member|viewer", help=t("tokens.role"))] = "member",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        _show(client.send(calls.put_oidc_group(group, tenant, role)), as_json)


@OIDC.command("unmap", help=t("oidc.unmap"))
def unmap_group(group: Group, tenant: Tenant, as_json: AsJson = False) -> None:
    with connect() as client:
        _show(client.send(calls.put_oidc_group(group, tenant, None)), as_json)


@OIDC.command("off", help=t("oidc.off"))
def switch_off() -> None:
    with connect() as client:
        client.send(calls.remove_oidc())


def _show(found: View, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    names = ("issuer", "client_id", "scopes", "user_claim", "groups_claim")
    show_table([t("column.what"), t("column.value")], [(t(f"oidc.{name}"), found[name]) for name in names])
    if found["groups"]:
        print()
        rows = [(one["group"], one["tenant_id"], one["role"]) for one in found["groups"]]
        show_table([t("oidc.group"), t("column.tenant"), t("column.role")], rows)
