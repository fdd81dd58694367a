"""gpuyard verify"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, share, show_json, show_table, size, t
from gpuyard.sdk import calls, types

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
_WORD = {True: "held", False: "exceeded", None: "untried"}


@APP.command(help=t("verify.help"))
def verify(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help=t("argument.workload"))],
    replica: Annotated[int | None, typer.Option(help=t("option.replica"))] = None,
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    say(t("verify.trying", workload=workload))
    with connect() as client:
        told = client.send(calls.verify(workload, replica, tenant))
    if as_json:
        show_json(told)
    else:
        columns = [t(f"column.{name}") for name in ("tried", "card", "limit", "got", "result")]
        show_table(columns, [_row(check) for check in told["checks"]])
        print(t("verify.held" if told["held"] else "verify.exceeded", guarantee=told["guarantee"]))
    if not told["held"]:
        raise typer.Exit(1)


def _row(check: types.Check) -> tuple[object, ...]:
    def amount(value: int | None) -> str | None:
        if value is None:
            return None
        return {"compute": share, "cards": str, "multiprocessors": str}.get(check["name"], size)(value)

    tried = t(f"verify.{check['name']}", way=check["way"])
    return tried, check["card"], amount(check["limit"]), amount(check["got"]), t(f"verify.{_WORD[check['held']]}_word")
