"""The demo as it is seen: a live table on a terminal, a line for each news elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuyard.cli.demo.checking import Check
from gpuyard.cli.output import age, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import calls, types

if TYPE_CHECKING:
    from rich.table import Table

    from gpuyard.sdk.client import Client

REFRESH_SECONDS = 0.3


def tell(check: Check) -> None:
    """One check, in words."""
    print(f"{'+' if check.ok else '-'} {t(f'demo.check.{check.name}')}: {check.detail}", flush=True)


@contextmanager
def watching(url: str, token: str, live: bool) -> Iterator[None]:
    """Shows the tenant's workloads, the training's last line and the money so far, for as long as this goes on."""
    if not (live and sys.stdout.isatty()):
        yield
        return
    from rich.live import Live

    from gpuyard.sdk.client import Client

    done = threading.Event()
    with Client(url, token) as client, Live(refresh_per_second=4, transient=True) as screen:

        def follow() -> None:
            while not done.wait(REFRESH_SECONDS):
                try:
                    screen.update(_table(client))
                except YardError:
                    return  # the yard is going: there is nothing left to watch

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=5)


def _table(client: Client) -> Table:
    from rich.table import Table

    found = list(client.workloads())
    bill = client.send(calls.bill())
    table = Table(title=t("demo.title"), caption=t("demo.so_far", total=bill["total"], currency=bill["currency"]))
    for column in ("name", "kind", "offer", "state", "age", "doing"):
        table.add_column(t(f"column.{column}"), no_wrap=column != "doing")
    for workload in reversed(found):
        offer = workload["spec"]["slices"]["offer"] or "custom"
        cells = (workload["name"], workload["kind"], offer, workload["state"], age(workload["created_at"]))
        table.add_row(*cells, _doing(client, workload), style="green" if workload["state"] == "running" else None)
    return table


def _doing(client: Client, workload: types.Workload) -> str:
    last = ""
    for line in client.logs(workload["id"]):
        last = line["text"]
    return last or workload["reason_text"] or ""
