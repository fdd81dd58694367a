"""gpuyard demo"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.demo.checking import Findings
from gpuyard.cli.demo.hosting import Hosted, hosted_yard
from gpuyard.cli.demo.story import Outcome, make_tenant, play, require_extra
from gpuyard.cli.output import say, show_json, t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)


@APP.command(help=t("demo.help"))
def demo(
    once: Annotated[bool, typer.Option("--once", help=t("demo.once"))] = False,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help=t("demo.state"))] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help=t("up.port"))] = 0,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    from gpuyard.cli.demo.screen import tell, watching
    from gpuyard.sdk.client import Client

    require_extra()
    asked_to_end = threading.Event()

    def leave(*_: object) -> None:
        asked_to_end.set()
        raise KeyboardInterrupt

    for ending in (signal.SIGINT, signal.SIGTERM):  # both stop the yard in good order
        signal.signal(ending, leave)
    findings = Findings() if as_json else Findings(tell)
    begun = time.monotonic()
    if not as_json:
        say(t("demo.starting"))
    with hosted_yard(state, port) as yard, tempfile.TemporaryDirectory() as scratch:
        findings.durations_s["up"] = round(time.monotonic() - begun, 3)
        with Client(yard.address, yard.token) as operator:
            token = make_tenant(operator)
        with Client(yard.address, token) as tenant, watching(yard.address, token, live=not as_json):
            outcome = play(tenant, findings, Path(scratch))
        if asked_to_end.is_set():  # the interrupt was raised where Python drops what is raised: in a finaliser
            raise KeyboardInterrupt
        findings.durations_s["total"] = round(time.monotonic() - begun, 3)
        if as_json:
            show_json(_summary(findings, outcome))
        else:
            _print_bill(findings, outcome)
        if not once:
            _keep_serving(yard)
    if not findings.ok:
        raise typer.Exit(1)


def _summary(findings: Findings, outcome: Outcome) -> dict[str, object]:
    bill = outcome.bill
    return {
        "ok": findings.ok,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in findings.checks],
        "workloads": outcome.workloads,
        "leases": outcome.leases,
        "intervals": outcome.intervals,
        "lines": bill["lines"] if bill else [],
        "total": bill["total"] if bill else None,
        "currency": bill["currency"] if bill else None,
        "durations_s": findings.durations_s,
    }


def _print_bill(findings: Findings, outcome: Outcome) -> None:
    from gpuyard.cli.commands.money import show_bill

    if outcome.bill is not None:
        print()
        show_bill(outcome.bill)
    print()
    seconds = findings.durations_s["total"]
    print(t("demo.held" if findings.ok else "demo.not_held", seconds=f"{seconds:.1f}"), flush=True)


def _keep_serving(yard: Hosted) -> None:
    """Until Ctrl-C."""
    say(t("demo.serving", address=yard.address))
    if yard.token:
        say(f"  gpuyard login --url {yard.address} --token {yard.token}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say(t("demo.ending"))
