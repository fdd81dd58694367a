"""What happens in the demo: a tenant with credit, three workloads side by side, and their bill."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.cli.demo.checking import Findings, expected_total
from gpuyard.model.errors import YardError
from gpuyard.sdk import calls, types

if TYPE_CHECKING:
    from gpuyard.sdk.client import Client

SCRIPTS = Path(__file__).parent / "workloads"
CREDIT = "25.00"
ACCURACY = 0.90
QUESTIONS = 40


@dataclass(slots=True)
class Outcome:
    """What the demo has to show at its end."""

    workloads: list[types.Workload] = field(default_factory=list[types.Workload])
    leases: list[types.Lease] = field(default_factory=list[types.Lease])
    intervals: list[types.Interval] = field(default_factory=list[types.Interval])
    bill: types.Bill | None = None


def require_extra() -> None:
    """Raises YardError `extra_missing` where what the training job needs is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("numpy", "sklearn")):
        raise YardError("extra_missing", extra="demo", command='pip install "gpuyard[demo]"')


def make_tenant(operator: Client) -> str:
    """A tenant with credit, and the token of a member of it. Another demo on the same state has another tenant."""
    taken = {tenant["name"] for tenant in operator.send(calls.tenants())["items"]}
    name = next(f"demo{n}" if n else "demo" for n in range(1000) if (f"demo{n}" if n else "demo") not in taken)
    operator.send(calls.add_tenant(name, CREDIT))
    return operator.send(calls.add_token("demo", "member", name)).get("token", "")


def launches() -> list[types.Launch]:
    """The three workloads."""
    python = sys.executable
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return [
        {
            "kind": "job",
            "name": "train-digits",
            "slices": {"offer": "rtx4090-half"},
            "command": [python, str(SCRIPTS / "train_digits.py")],
            "environment": one_thread,
            "memory_bytes": 1 << 30,
        },
        {
            "kind": "service",
            "name": "read-digits",
            "slices": {"offer": "rtx4090-quarter"},
            "command": [python, str(SCRIPTS / "serve_digits.py")],
            "environment": one_thread,
            "ports": [8000],
            "memory_bytes": 1 << 30,
        },
        {
            "kind": "instance",
            "name": "workbench",
            "slices": {"offer": "rtx4090-eighth"},
            "memory_bytes": 1 << 28,
        },
    ]


def play(tenant: Client, findings: Findings, scratch: Path) -> Outcome:
    """Everything, in order. A check that fails does not end it; what cannot go on raises YardError."""
    begun = {}
    for wish in launches():
        begun[wish.get("name", "")] = time.monotonic()
        tenant.launch(wish)
    for name, moment in begun.items():
        tenant.wait(name, {"running", "succeeded"}, timeout_s=20)
        findings.durations_s[f"launch_to_running.{name}"] = round(time.monotonic() - moment, 3)
    _use_service(tenant, findings)
    _use_instance(tenant, findings)
    _finish_job(tenant, findings, scratch)
    return _settle(tenant, findings, list(begun))


def _use_service(tenant: Client, findings: Findings) -> None:
    """Real requests with real digits; the answers are compared with what the digits are."""
    import httpx

    address = tenant.send(calls.workload("read-digits"))["endpoints"][0]["address"]
    with findings.timed("service_requests"), httpx.Client(base_url=f"http://{address}", timeout=10) as http:
        _until_healthy(http)
        right = 0
        asked = _digits(QUESTIONS)
        for pixels, digit in asked:
            response = http.post("/classify", content=json.dumps({"pixels": pixels}))
            right += response.status_code == 200 and response.json()["digit"] == digit
    findings.check("service_answers", right >= 0.8 * len(asked), f"{right}/{len(asked)} digits read right over HTTP")


def _until_healthy(http: object) -> None:
    import httpx

    assert isinstance(http, httpx.Client)  # noqa: S101 - for the type alone
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if http.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise YardError("timed_out", what="read-digits", seconds="15", state="running")


def _digits(count: int) -> list[tuple[list[float], int]]:
    spec = importlib.util.find_spec("sklearn")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    with gzip.open(folder / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = [[float(part) for part in line.split(",")] for line in list(file)[-count:]]
    return [(row[:64], int(row[64])) for row in rows]


def _use_instance(tenant: Client, findings: Findings) -> None:
    """Into it, a file left there, stopped, started: the file is still there."""
    with findings.timed("exec"):
        code, output = tenant.execute("workbench", ["sh", "-c", "echo $GPUYARD_WORKLOAD; echo kept > note.txt"])
    findings.check("exec_in_instance", code == 0 and output == b"workbench\n", output.decode(errors="replace").strip())
    with findings.timed("stop_and_start"):
        tenant.send(calls.stop("workbench"))
        tenant.wait("workbench", {"stopped"}, timeout_s=20)
        tenant.send(calls.start("workbench"))
        tenant.wait("workbench", {"running"}, timeout_s=20)
    code, output = tenant.execute("workbench", ["cat", "note.txt"])
    findings.check("disk_kept_over_stop", code == 0 and output == b"kept\n", output.decode(errors="replace").strip())


def _finish_job(tenant: Client, findings: Findings, scratch: Path) -> None:
    """The training ends by itself; what it saved is copied out and opened."""
    with findings.timed("training"):
        done = tenant.wait("train-digits", {"succeeded"}, timeout_s=60)
    findings.check("job_succeeded", done["exit_code"] == 0, done["reason_text"])
    epochs = [line["text"] for line in tenant.logs("train-digits") if line["text"].startswith("epoch ")]
    findings.check("job_shows_progress", len(epochs) >= 10, f"{len(epochs)} epochs; {epochs[-1] if epochs else '--'}")
    tenant.copy_out("train-digits", "checkpoint.npz", scratch / "checkpoint.npz")
    accuracy = _open_checkpoint(scratch / "checkpoint.npz")
    findings.check("checkpoint_saved", accuracy > ACCURACY, f"accuracy {accuracy:.4f} on digits it never saw")


def _open_checkpoint(path: Path) -> float:
    import numpy as np

    with np.load(path) as kept:
        return float(kept["accuracy"]) if kept["arr_0"].shape[0] == 64 else 0.0


def _settle(tenant: Client, findings: Findings, names: list[str]) -> Outcome:
    """Everything is stopped, and the bill must be what the intervals come to."""
    with findings.timed("stop_all"):
        for name in names[1:]:
            tenant.send(calls.stop(name))
        for name in names[1:]:
            tenant.wait(name, {"stopped"}, timeout_s=20)
    workloads = [tenant.send(calls.workload(name)) for name in names]
    leases = [lease for workload in workloads for lease in workload["leases"]]
    for name in names:
        tenant.send(calls.remove(name))
    for workload in workloads:
        tenant.wait(workload["id"], {"removed"}, timeout_s=20)
    intervals = list(tenant.pages(lambda cursor: calls.intervals(cursor=cursor)))
    bill = tenant.send(calls.bill())
    together_s = _together_seconds(intervals, names)
    findings.check("three_run_side_by_side", together_s > 0, f"{', '.join(names)}: {together_s:.2f} s at the same time")
    lines = sum((Decimal(line["amount"]) for line in bill["lines"]), Decimal())
    expected = expected_total(intervals)
    findings.check("bill_is_its_lines", lines == Decimal(bill["total"]), f"{len(bill['lines'])} lines, {bill['total']}")
    findings.check("bill_is_its_intervals", expected == Decimal(bill["total"]), f"recomputed {expected:.6f}")
    findings.check("intervals_without_gap", _without_gap(intervals), f"{len(intervals)} intervals")
    held = sum(card["leases"] for card in tenant.pages(lambda cursor: calls.cards(cursor=cursor)))
    findings.check("all_slices_given_back", held == 0, f"{held} leases hold slices")
    return Outcome(workloads, leases, intervals, bill)


def _together_seconds(intervals: list[types.Interval], names: list[str]) -> float:
    """How long the first runs of all of them overlapped."""
    first = [
        next((i for i in intervals if i["workload_name"] == name and i["state"] == "active"), None) for name in names
    ]
    spans = [(datetime.fromisoformat(i["start"]), datetime.fromisoformat(i["end"])) for i in first if i is not None]
    if len(spans) < len(names):
        return 0.0
    return (min(end for _, end in spans) - max(start for start, _ in spans)).total_seconds()


def _without_gap(intervals: list[types.Interval]) -> bool:
    """A lease's intervals follow each other; only a stop, which ends with a new request for slices, parts them."""
    last: dict[str, types.Interval] = {}
    for interval in intervals:
        before = last.get(interval["lease_id"])
        if before is not None:
            follows = interval["sequence"] == before["sequence"] + 1
            joined = interval["start"] == before["end"] or before["state"] == "stopped"
            if not (follows and joined):
                return False
        last[interval["lease_id"]] = interval
    return bool(intervals)
