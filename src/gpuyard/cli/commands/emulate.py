"""gpuyard emulate"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.host import installed
from gpuyard.cli.output import t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)


@APP.command(help=t("emulate.help"))
def emulate(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help=t("emulate.command"))],
    cards: Annotated[str, typer.Option(metavar="SPEC", help=t("emulate.cards"))] = "1xRTX4090",
    virtual: Annotated[bool, typer.Option("--virtual", help=t("emulate.virtual"))] = False,
    driver: Annotated[str | None, typer.Option(metavar="VERSION", help=t("emulate.driver"))] = None,
) -> None:
    raise typer.Exit(installed().emulate(cards, command, virtual, driver))
