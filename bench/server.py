"""A loaded server: its memory with 1,000 cards and 1,000 leases, and what its calls cost."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from bench.figures import Figure, at_least, at_most, percentile
from bench.yards import RunningYard, yard

CARDS = 1000
LEASES = 1000
LISTS = 3000
LAUNCHES = 300

_FLOOR = """
import sqlite3, sys
from fastapi import FastAPI
import uvicorn
app = FastAPI()
db = sqlite3.connect(sys.argv[1], check_same_thread=False)
db.execute("create table w (id integer primary key, name text, state text, spec text)")
db.executemany("insert into w values (?, ?, 'running', '{}')", [(n, f"w{n}") for n in range(1000)])
@app.get("/list")
async def rows() -> list[dict]:
    found = db.execute("select * from w order by id desc limit 20").fetchall()
    return [dict(zip(("id", "name", "state", "spec"), row)) for row in found]
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def measure() -> list[Figure]:
    with (
        yard(f"{CARDS}xRTX4090", "simulated") as running,
        httpx.Client(base_url=running.url, headers=running.headers, timeout=30) as client,
    ):
        for n in range(LEASES):
            launch(client, n)
        _until_running(client, LEASES)
        rss = running.rss_mib()
        per_second = _lists_per_core(running, client)
        quick = [launch(client, LEASES + n) for n in range(LAUNCHES)]
        rss_after = running.rss_mib()
    floor = _floor_per_core()
    how = "requests / server CPU-seconds over one keep-alive connection"
    return [
        at_most("server.rss_1000_cards_1000_leases", max(rss, rss_after), "MiB", 100,
                "dstack 205, GPUStack 494, SkyPilot 772 (idle, empty)", "VmRSS of the server, simulated runtime"),
        at_least("server.list_20_per_core", per_second, "req/s", 1000, "dstack ~120, GPUStack ~100, SkyPilot ~55",
                 f"GET /v1/workloads?limit=20, {LISTS} {how}"),
        at_least("server.list_against_bare_app", per_second / floor, "ratio", 0.2,
                 f"bare FastAPI + sqlite3 list of 20 rows: {floor:.0f} req/s per core in this run",
                 "the two figures of this run"),
        at_most("server.launch_accepted_p99", percentile(quick, 0.99) * 1000, "ms", 30, "SkyPilot queues each launch",
                f"POST /v1/workloads, {LAUNCHES} one after the other, answer in hand, {LEASES} leases running"),
    ]  # fmt: skip


def launch(client: httpx.Client, n: int) -> float:
    """Seconds until a launch was accepted."""
    body = {"kind": "instance", "name": f"w{n}", "slices": {"offer": "rtx4090-sixteenth"}, "command": ["sleep", "inf"]}
    begun = time.perf_counter()
    response = client.post("/v1/workloads", json=body)
    seconds = time.perf_counter() - begun
    response.raise_for_status()
    return seconds


def _until_running(client: httpx.Client, wanted: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if client.get("/v1/yard").json()["workloads"].get("running", 0) >= wanted:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{wanted} workloads did not come to run")


def _lists_per_core(running: RunningYard, client: httpx.Client) -> float:
    client.get("/v1/workloads?limit=20").raise_for_status()
    before = running.cpu_seconds()
    for _ in range(LISTS):
        client.get("/v1/workloads?limit=20")
    return LISTS / (running.cpu_seconds() - before)


def _floor_per_core() -> float:
    """The same client on a bare application: what the frameworks cost without us."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "floor.py"
        script.write_text(_FLOOR)
        port = "18479"
        process = subprocess.Popen([sys.executable, str(script), str(Path(folder) / "floor.db"), port])
        try:
            floor = RunningYard(process.pid, f"http://127.0.0.1:{port}", "", Path(folder), 0)
            with httpx.Client(base_url=floor.url) as client:
                _until_answers(client)
                before = floor.cpu_seconds()
                for _ in range(LISTS):
                    client.get("/list")
                return LISTS / (floor.cpu_seconds() - before)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _until_answers(client: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            client.get("/list").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError("the bare application did not answer")
