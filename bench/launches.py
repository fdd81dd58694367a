"""From a launch to a running unit: real processes, and a sustained stream of simulated ones."""

from __future__ import annotations

import time
from statistics import median

import httpx

from bench.figures import Figure, at_least, at_most, percentile
from bench.server import launch
from bench.yards import yard

REAL = 30
PER_MINUTE = 1000
MINUTES = 1.0


def measure() -> list[Figure]:
    seconds = _real_launches()
    reached, backlog = _sustained()
    return [
        at_most("launch.process_running_p50", median(seconds) * 1000, "ms", 300, "seconds on every peer",
                f"{REAL} launches one by one: POST to state `running`, polled every 10 ms"),
        at_most("launch.process_running_p95", percentile(seconds, 0.95) * 1000, "ms", 600, "seconds on every peer",
                "the same launches"),
        at_least("launch.simulated_per_minute", reached, "launches", PER_MINUTE, "Kueue ~10 admissions/min (1,300 nodes)",
                 f"{MINUTES:g} min of launches at that rate, each running and removed again"),
        at_most("launch.simulated_backlog_at_end", backlog, "workloads", 20, "-",
                "launched and not yet running when the last launch was accepted"),
    ]  # fmt: skip


def _real_launches() -> list[float]:
    with yard("8xRTX4090", "process") as running, httpx.Client(base_url=running.url, headers=running.headers) as client:
        found = []
        for n in range(REAL):
            begun = time.perf_counter()
            launch(client, n)
            while client.get(f"/v1/workloads/w{n}").json()["state"] != "running":
                if time.perf_counter() - begun > 20:
                    raise RuntimeError(f"w{n} did not come to run")
                time.sleep(0.01)
            found.append(time.perf_counter() - begun)
        for n in range(REAL):
            client.delete(f"/v1/workloads/w{n}")
        return found


def _sustained() -> tuple[float, float]:
    """Launches accepted per minute, and how many of them waited when the last was accepted."""
    total = int(PER_MINUTE * MINUTES)
    with (
        yard("1000xRTX4090", "simulated") as running,
        httpx.Client(base_url=running.url, headers=running.headers, timeout=30) as client,
    ):
        begun = time.monotonic()
        for n in range(total):
            due = begun + n * 60 / PER_MINUTE
            time.sleep(max(0.0, due - time.monotonic()))
            launch(client, n)
            if n >= 200:
                client.delete(f"/v1/workloads/w{n - 200}").raise_for_status()
        minutes = (time.monotonic() - begun) / 60
        states = client.get("/v1/yard").json()["workloads"]
        return round(total / minutes, 1), float(states.get("pending", 0) + states.get("starting", 0))
