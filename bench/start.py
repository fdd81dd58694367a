"""How soon a yard answers, and what the command line costs before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from bench.figures import Figure, at_most
from bench.yards import yard

RUNS = 5


def measure() -> list[Figure]:
    starts = []
    for _ in range(RUNS):
        with yard("8xRTX4090", "process") as running:
            starts.append(running.start_seconds)
    return [
        at_most(
            "start.up_to_first_answer", median(starts), "s", 2.0, "dstack 5.3, SkyPilot 13, GPUStack 33 (best runs)",
            f"median of {RUNS}: spawn of `gpuyard up` on an empty state directory to /v1/health",
        ),
        at_most(
            "start.help_cpu", median(_help_cpu() for _ in range(RUNS)), "CPU-s", 0.3,
            "dstack 2.0, SkyPilot 4.2, GPUStack 21.6", f"median of {RUNS}: user and system time of `gpuyard --help`",
        ),
        at_most(
            "start.python_floor_cpu", median(_cpu([sys.executable, "-c", "pass"]) for _ in range(RUNS)), "CPU-s", 0.3,
            "the interpreter itself", "the floor of the figure above, in the same run",
        ),
    ]  # fmt: skip


def _help_cpu() -> float:
    return _cpu([sys.executable, "-m", "gpuyard", "--help"])


def _cpu(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
