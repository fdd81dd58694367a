"""gpuyard login"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import CHOSEN, save
from gpuyard.cli.output import say, show_json, t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)


@APP.command(help=t("login.help"))
def login(
    url: Annotated[str | None, typer.Option(help=t("option.url"))] = None,
    token: Annotated[str | None, typer.Option(help=t("option.token"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    from gpuyard.sdk import calls
    from gpuyard.sdk.client import Client

    url = url or CHOSEN.url or "http://127.0.0.1:8470"
    token = token or CHOSEN.token or str(typer.prompt(t("login.token"), hide_input=True, err=True))
    with Client(url, token) as client:
        me = client.send(calls.whoami())
    path = save(url, token)
    if as_json:
        show_json(me)
    else:
        say(t("login.done", user=me["user"], role=me["role"], tenant=me["tenant_name"], path=path))
