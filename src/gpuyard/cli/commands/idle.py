"""gpuyard idle"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.sdk import wallet_calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
IDLE = typer.Typer(rich_markup_mode=None, help=t("idle.help"), no_args_is_help=True)
APP.add_typer(IDLE, name="idle")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Whose = Annotated[str, typer.Argument(metavar="TENANT", help=t("option.tenant"))]


@IDLE.command("set", help=t("idle.set"))
def set_policy(
    tenant: Whose,
    warn: Annotated[str, typer.Option(help=t("idle.warn"))] = "1h",
    pause: Annotated[str, typer.Option(help=t("idle.pause"))] = "2h",
    signal: Annotated[list[str] | None, typer.Option(metavar="SIGNAL", help=t("idle.signal"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        _show(client.send(wallet_calls.set_idle_policy(tenant, warn, pause, signal or None)), as_json)


@IDLE.command("show", help=t("idle.show"))
def show(tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None, as_json: AsJson = False) -> None:
    with connect() as client:
        _show(client.send(wallet_calls.idle(tenant)), as_json)


@IDLE.command("off", help=t("idle.off"))
def off(tenant: Whose) -> None:
    with connect() as client:
        client.send(wallet_calls.remove_idle_policy(tenant))
    say(t("idle.none"))


def _show(found: wallet_calls.Idle, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    if not found["signals"]:
        say(t("idle.none"))
    else:
        signals = ", ".join(found["signals"])
        say(t("idle.policy", warn=found["warn_seconds"], pause=found["pause_seconds"], signals=signals))
    columns = ["workload", "since", "warned", "paused", "saved"]
    rows = [(x["workload"], x["since"], x["warned_at"], x["paused_at"], x["saved"]) for x in found["idle"]]
    if rows:
        show_table([t(f"column.{name}") for name in columns], rows)
    say(t("idle.saved", amount=found["saved"], currency=found["currency"]))
