"""gpuyard why, plan, checkpoint"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import ABSENT, say, show_json, show_table, t
from gpuyard.sdk import queue_calls as calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help=t("argument.workload"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]


@APP.command(help=t("why.help"))
def why(workload: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.why(workload, tenant))
    if as_json:
        show_json(found)
        return
    print(t("work.is", name=found["name"], state=found["state"]))
    for line in found["lines"]:
        print(f"  {line}")


@APP.command(help=t("plan.help"))
def plan(
    card_hours: Annotated[str, typer.Option("--work", metavar="CARD-HOURS", help=t("plan.work"))],
    card_model: Annotated[str, typer.Option("--on", metavar="MODEL", help=t("plan.on"))],
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help=t("plan.deadline"))] = None,
    budget: Annotated[str | None, typer.Option(metavar="AMOUNT", help=t("plan.budget"))] = None,
    count: Annotated[int, typer.Option(help=t("run.count"))] = 1,
    option: Annotated[str | None, typer.Option(metavar="on_demand|spot", help=t("run.option"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        found = client.send(calls.compare(calls.goal(card_model, card_hours, deadline, budget), count, option))
    if as_json:
        show_json(found)
        return
    columns = ["model", "option", "price", "start", "finish", "cost", "misses"]
    rows = [
        (
            f"{tier['count']} x {tier['card_model']}" + (" *" if tier["chosen"] else ""),
            tier["option"],
            f"{tier['price_per_hour']} {tier['currency']}/h",
            tier["start_at"] or ABSENT,
            tier["finish_at"] or ABSENT,
            tier["cost"],
            ", ".join(t(f"plan.miss.{miss}") for miss in tier["misses"]),
        )
        for tier in found["tiers"]
    ]
    show_table([t(f"column.{name}") for name in columns], rows)
    print(found["text"])


@APP.command(help=t("checkpoint.help"))
def checkpoint(workload: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        done = client.send(calls.checkpoint(workload, tenant))
    if as_json:
        show_json(done)
        return
    say(t("checkpoint.done", at=done["at"], leases=done["leases"]))
