"""A real `gpuyard up` in a process of its own, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class RunningYard:
    pid: int
    url: str
    token: str
    state: Path
    start_seconds: float  # from spawn to the first answered request

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def cpu_seconds(self) -> float:
        """User and system time of the server process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mib(self) -> float:
        """Resident memory of the server process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")


@contextmanager
def yard(simulate: str, runtime: str) -> Iterator[RunningYard]:
    """A yard on a fresh state directory, stopped and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="gpuyard-bench-") as folder:
        begun = time.monotonic()
        command = [sys.executable, "-m", "gpuyard", "up", "--state", folder, "--simulate", simulate]
        process = subprocess.Popen(
            [*command, "--runtime", runtime, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            httpx.get(told["address"] + "/v1/health").raise_for_status()
            start_seconds = time.monotonic() - begun
            running = RunningYard(process.pid, told["address"], told["token"], Path(folder), start_seconds)
            for of in ("read", "change", "launch", "enter"):  # what one token may do is not what is measured
                limit = httpx.put(f"{running.url}/v1/rate-limits/{of}", headers=running.headers, json={})
                limit.raise_for_status()
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
