"""Slices under MPS: a real yard, real processes and containers, an emulated driver with its control daemons below."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from real_yard import RealYard, wait_for
from slices_in_hand import MIB, compile_tenant

pytestmark = pytest.mark.slow

QUARTER = 24576 * MIB // 4
CONTEXT = 400 * MIB


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_tenant(tmp_path_factory.mktemp("tenant")))


@pytest.fixture(scope="module")
def yard() -> Iterator[RealYard]:
    with tempfile.TemporaryDirectory() as folder:  # the path of a daemon's socket may only be short
        yard = RealYard(Path(folder), "--simulate", "2xRTX4090", "--runtime", "process", "--mps")
        yard.up()
        yield yard
        yard.close()


def daemon_of(lease: dict[str, Any], yard: RealYard) -> int:
    (note,) = yard.state.glob(f"slices/mps/{lease['slices'][0]['card_uuid'][4:12]}*/pipes/nvidia-cuda-mps-control.pid")
    return int(note.read_text())


def test_offers_leases_and_the_doctor_say_mps_and_what_it_leaves_open(yard: RealYard, tenant: str) -> None:
    levels = {offer["name"]: offer["guarantee"] for offer in yard.json("offers")}
    assert (levels["rtx4090-quarter"], levels["rtx4090-full"]) == ("mps", "cooperative")
    (cut,) = yard.instance("told", "sleep", "600")["slices"]
    assert cut["guarantee"] == "mps"
    assert any("fatal fault" in each for each in cut["not_protected"])
    (finding,) = (each for each in yard.get("doctor")["findings"] if each["name"] == "mps")
    assert finding["ok"] is True
    yard.run("rm", "told")


def test_a_program_gets_its_memory_and_its_multiprocessors(yard: RealYard, tenant: str) -> None:
    granted = (QUARTER - CONTEXT) // (256 * MIB)
    printed = yard.run(
        "run", "--offer", "rtx4090-quarter", "--job", "--follow", "--", tenant, "fill", "plain", str(256 * MIB)
    )
    assert f"granted {granted} then 2" in printed
    yard.instance("box", "sleep", "600")
    told = yard.json("verify", "box")
    assert (told["guarantee"], told["held"]) == ("mps", True)
    (seen,) = (check for check in told["checks"] if check["name"] == "multiprocessors")
    assert (seen["limit"], seen["got"]) == (32, 32)
    yard.run("rm", "box")


def test_shares_of_several_cards_for_one_program_are_refused_in_a_sentence(yard: RealYard) -> None:
    refused = yard.cli("run", "--offer", "rtx4090-half", "--count", "2", "--job", "--", "true")
    assert refused.returncode != 0
    assert "[mps_one_card]" in refused.stderr
    assert "one card under MPS" in refused.stderr


def test_a_dead_daemon_is_started_again_and_told_of_and_a_killed_yard_finds_it(yard: RealYard, tenant: str) -> None:
    lease = yard.instance("long", "sleep", "600")
    pid = daemon_of(lease, yard)
    yard.kill()
    yard.up()
    assert daemon_of(lease, yard) == pid
    assert {offer["guarantee"] for offer in yard.json("offers") if offer["name"] == "rtx4090-quarter"} == {"mps"}
    for child in [pid, *(int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        os.kill(child, signal.SIGKILL)
    told = wait_for(
        lambda: [e for e in yard.get("events?limit=500")["items"] if e["kind"] == "mps.restarted"], seconds=30
    )
    assert told[0]["subject"] == lease["slices"][0]["card_uuid"]
    assert daemon_of(lease, yard) != pid
    assert f"total {QUARTER}" in yard.run("exec", "long", "--", tenant, "info")
    yard.run("rm", "long")
    begun = time.monotonic()
    wait_for(lambda: not list(yard.state.glob("slices/mps/*/pipes")))  # the last slice took the daemon along
    assert time.monotonic() - begun < 20
