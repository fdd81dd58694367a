"""The demo is the main job: it works, its claims hold, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from real_yard import processes_below, wait_for

pytestmark = pytest.mark.slow


def demo(home: Path, *words: str) -> subprocess.Popen[str]:
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
    }
    return subprocess.Popen(
        ["gpuyard", "demo", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def nothing_is_left(home: Path) -> None:
    wait_for(
        lambda: not processes_below(home),
        lambda: [Path(f"/proc/{p}/cmdline").read_bytes() for p in processes_below(home)],
    )
    assert [path.name for path in home.iterdir() if path.name not in {".config", ".cache"}] == []


def test_unattended_it_prints_one_object_whose_claims_all_hold(tmp_path: Path) -> None:
    begun = time.monotonic()
    running = demo(tmp_path, "--once", "--json")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert time.monotonic() - begun < 60
    told = json.loads(out)
    assert {"workloads", "leases", "intervals", "lines", "total"} <= set(told)
    assert Decimal(told["total"]) == sum(Decimal(line["amount"]) for line in told["lines"]) > 0
    assert len(told["workloads"]) == 3
    assert all(check["ok"] for check in told["checks"])
    assert len(told["checks"]) >= 5
    nothing_is_left(tmp_path)


def test_interrupted_in_the_middle_it_leaves_nothing(tmp_path: Path) -> None:
    running = demo(tmp_path, "--once")
    wait_for(lambda: len(processes_below(tmp_path)) >= 4 or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "Traceback" not in err
    nothing_is_left(tmp_path)
