"""gpuyard rates"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import security_calls as calls
from gpuyard.sdk.access_calls import View

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
RATES = typer.Typer(rich_markup_mode=None, help=t("rates.help"), no_args_is_help=True)
APP.add_typer(RATES, name="rates")


@RATES.command("list", help=t("rates.list"))
def list_rates(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.rate_limits())["items"]
    _show(found, as_json)


@RATES.command("set", help=t("rates.set"))
def set_rate(
    action_class: Annotated[str, typer.Argument(metavar="read|change|launch|enter", help=t("rates.class"))],
    per_second: Annotated[str, typer.Argument(metavar="NUMBER|none", help=t("rates.per_second"))],
    burst: Annotated[int, typer.Option(min=1, help=t("rates.burst"))] = 100,
    as_json: AsJson = False,
) -> None:
    try:
        rate = None if per_second == "none" else float(per_second)
    except ValueError:
        raise YardError("invalid_request", reason=f"'{per_second[:40]}' is not a number, nor none") from None
    with connect() as client:
        _show([client.send(calls.put_rate_limit(action_class, rate, burst))], as_json)


def _show(found: list[View], as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    columns = [t(f"column.{name}") for name in ("action_class", "per_second", "burst")]
    show_table(columns, [(one["action_class"], one["per_second"], one["burst"]) for one in found])
