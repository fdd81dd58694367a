"""gpuyard login"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import CHOSEN, read_authority, save
from gpuyard.cli.output import say, show_json, t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)


@APP.command(help=t("login.help"))
def login(
    url: Annotated[str | None, typer.Option(help=t("option.url"))] = None,
    token: Annotated[str | None, typer.Option(help=t("option.token"))] = None,
    user: Annotated[str | None, typer.Option(help=t("login.user"))] = None,
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    oidc: Annotated[bool, typer.Option("--oidc", help=t("login.oidc"))] = False,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help=t("login.ca"))] = None,
    ca_sha256: Annotated[str | None, typer.Option(metavar="HEX", help=t("login.ca_sha256"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    from gpuyard.sdk import calls
    from gpuyard.sdk.client import Client
    from gpuyard.sdk.pinning import fetch_authority

    url = url or CHOSEN.url or "http://127.0.0.1:8470"
    authority = read_authority(ca) if ca is not None else None if ca_sha256 is None else fetch_authority(url, ca_sha256)
    if oidc:
        token = _by_provider(url, authority, tenant)
    elif user is not None:
        token = _by_password(url, authority, tenant, user)
    token = token or CHOSEN.token or str(typer.prompt(t("login.token"), hide_input=True, err=True))
    with Client(url, token, ca=authority) as client:
        me = client.send(calls.whoami())
    path = save(url, token, authority)
    if as_json:
        show_json(me)
    else:
        say(t("login.done", user=me["user"], role=me["role"], tenant=me["tenant_name"], path=path))


def _by_password(url: str, authority: str | None, tenant: str | None, user: str) -> str:
    """A token for half a day."""
    from gpuyard.cli.commands.users import ask_password
    from gpuyard.sdk import security_calls
    from gpuyard.sdk.client import Client

    password = ask_password(t("login.password"))
    with Client(url, ca=authority) as client:
        return str(client.send(security_calls.sign_in(tenant or "operators", user, password))["token"])


def _by_provider(url: str, authority: str | None, tenant: str | None) -> str:
    """A token for half a day, for whom the yard's login provider vouches."""
    import webbrowser

    from gpuyard.cli.loopback import authorize
    from gpuyard.sdk import security_calls
    from gpuyard.sdk.client import Client

    def show(page: str) -> None:
        say(t("login.visit", page=page))
        if not os.environ.get("GPUYARD_NO_BROWSER"):
            webbrowser.open(page)

    with Client(url, ca=authority) as client:
        begun = client.send(security_calls.begin_oidc())
        granted = authorize(begun, show, t("login.close"))
        session = client.send(
            security_calls.finish_oidc(
                granted.code, granted.code_verifier, granted.redirect_uri, begun["nonce"], tenant
            )
        )
        return str(session["token"])
