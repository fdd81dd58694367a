"""Waiting with something to see: a line for every new state, on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuyard.cli.output import say, t
from gpuyard.sdk import calls, types
from gpuyard.sdk.waiting import settled

if TYPE_CHECKING:
    from gpuyard.sdk.client import Client

QUIET_SECONDS = 1.0
POLL_SECONDS = 0.1


def wait_for(client: Client, workload: types.Workload, until: Iterable[str] | None) -> types.Workload:
    """Waits until a workload is where it should be; says what it waits for once that takes longer than a second."""
    wanted = frozenset(until) if until is not None else None
    begun = time.monotonic()
    said: tuple[str, str | None] | None = None
    while not settled(workload, wanted):
        now = (workload["state"], workload["reason_text"])
        if time.monotonic() - begun > QUIET_SECONDS and now != said:
            say(t("work.waiting", name=workload["name"], state=now[0], why=now[1] or ""))
            said = now
        time.sleep(POLL_SECONDS)
        workload = client.send(calls.workload(workload["id"]))
    return workload
