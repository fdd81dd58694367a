"""gpuyard simulate"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuyard.cli.host import SimulateOptions, installed
from gpuyard.cli.output import say, show_json, show_table, t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)

_PROGRESS_SECONDS = 1.0


@APP.command(help=t("simulate.help"))
def simulate(
    nodes: Annotated[Path, typer.Option(metavar="FILE", help=t("simulate.nodes"))],
    pods: Annotated[Path, typer.Option(metavar="FILE", help=t("simulate.pods"))],
    policy: Annotated[str, typer.Option(metavar="POLICY", help=t("simulate.policy"))] = "gpuyard",
    seed: Annotated[int, typer.Option(min=0, help=t("simulate.seed"))] = 0,
    fill: Annotated[float | None, typer.Option(metavar="RATIO", help=t("simulate.fill"))] = None,
    churn: Annotated[float | None, typer.Option(metavar="LOAD", help=t("simulate.churn"))] = None,
    arrivals: Annotated[int, typer.Option(help=t("simulate.arrivals"))] = 50_000,
    lifetime: Annotated[str, typer.Option(metavar="TIME", help=t("simulate.lifetime"))] = "24h",
    wave: Annotated[float, typer.Option(help=t("simulate.wave"))] = 0.3,
    crowd: Annotated[float, typer.Option(metavar="TIMES", help=t("simulate.crowd"))] = 1.0,
    wait: Annotated[bool, typer.Option("--wait", help=t("simulate.wait"))] = False,
    moves: Annotated[bool, typer.Option(help=t("simulate.moves"))] = True,
    consolidate: Annotated[bool, typer.Option(help=t("simulate.consolidate"))] = True,
    faults: Annotated[float, typer.Option(metavar="PER_DAY", help=t("simulate.faults"))] = 0.0,
    price: Annotated[list[str] | None, typer.Option(metavar="[MODEL=]PRICE", help=t("simulate.price"))] = None,
    idle_watts: Annotated[int, typer.Option(min=0, help=t("simulate.idle_watts"))] = 0,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help=t("simulate.engine"))] = "auto",
    weight: Annotated[list[str] | None, typer.Option(metavar="TERM=N", help=t("up.weight"))] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help=t("simulate.log"))] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help=t("simulate.report"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    options = SimulateOptions(
        nodes=nodes, pods=pods, policy=policy, seed=seed, fill=fill, churn=churn, arrivals=arrivals, lifetime=lifetime,
        wave=wave, crowd=crowd, waits=wait, moves=moves, consolidates=consolidate, faults_per_day=faults,
        prices=tuple(price or ()), idle_watts=idle_watts, engine=engine, weights=tuple(weight or ()),
        log=log, report=report,
    )  # fmt: skip
    summary = installed().simulate(options, _Progress())
    if as_json:
        show_json(summary)
    else:
        show_table((t("column.what"), t("column.value")), list(_flat(summary)))


class _Progress:
    """Says how far it is, once a second."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._said >= _PROGRESS_SECONDS:
            self._said = now
            say(t("simulate.progress", done=done, total=total) if total else t("simulate.progress_open", done=done))


def _flat(summary: dict[str, Any]) -> list[tuple[str, object]]:
    """One row per figure; those of a group carry its name."""
    rows: list[tuple[str, object]] = []
    for name, value in summary.items():
        if isinstance(value, dict):
            rows += [(f"{name} {key}", part) for key, part in value.items()]
        else:
            rows.append((name, value))
    return rows
