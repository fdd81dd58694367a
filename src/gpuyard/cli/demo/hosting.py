"""The demo's own yard: a real `gpuyard up` in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gpuyard.model.errors import YardError

FLEET = "8xRTX4090"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Hosted:
    """A yard that answers."""

    address: str
    token: str | None
    state: Path
    cards: int


@contextmanager
def hosted_yard(state: Path | None, port: int) -> Iterator[Hosted]:
    """A yard with a simulated node, on a state directory that is deleted at the end unless one was given.

    Raises YardError where the yard refuses to start; its own sentence has been printed then.
    """
    with tempfile.TemporaryDirectory(prefix="gpuyard-demo-", ignore_cleanup_errors=True) as scratch:
        folder = state if state is not None else Path(scratch)
        command = [sys.executable, "-m", "gpuyard", "up", "--simulate", FLEET, "--state", str(folder)]
        process = subprocess.Popen(  # noqa: S603
            [*command, "--port", str(port), "--runtime", "process", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the yard in good order
        )
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
            watchdog.cancel()
            if not line:
                raise YardError("yard_not_running", path=str(folder))
            told = json.loads(line)
            try:
                yield Hosted(told["address"], told["token"], folder, told["cards"])
            finally:
                if state is None:
                    _clear(told["address"], told["token"])
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_SECONDS)
            process.kill()
            process.wait()


def _clear(address: str, token: str | None) -> None:
    """Removes what still runs: units outlive their yard, and the demo, interrupted or not, leaves nothing behind."""
    from gpuyard.sdk import calls
    from gpuyard.sdk.client import Client

    deadline = time.monotonic() + STOP_SECONDS
    with suppress(YardError), Client(address, token) as client:
        for workload in client.workloads():
            client.send(calls.remove(workload["id"]))
        while list(client.workloads()) and time.monotonic() < deadline:
            time.sleep(0.05)
