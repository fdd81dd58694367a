"""Slices of plain processes, enforced: a real yard, real processes, the emulated driver below them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuyard.slicing.building import built
from gpuyard.slicing.shared_files import SliceCard, SliceLimits, encode
from real_yard import RealYard, wait_for
from slices_in_hand import MIB, compile_tenant

pytestmark = pytest.mark.slow

QUARTER = 24576 * MIB // 4
CONTEXT = 400 * MIB


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_tenant(tmp_path_factory.mktemp("tenant")))


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealYard]:
    yard = RealYard(tmp_path_factory.mktemp("yard"), "--simulate", "2xRTX4090", "--runtime", "process")
    yard.up()
    yield yard
    yard.close()


def run(yard: RealYard, offer: str, *command: str) -> str:
    return yard.run("run", "--offer", offer, "--job", "--follow", "--", *command)


def test_a_job_sees_its_slice_and_gets_no_more_than_that(yard: RealYard, tenant: str) -> None:
    assert f"free {QUARTER - CONTEXT} total {QUARTER}" in run(yard, "rtx4090-quarter", tenant, "info")
    granted = (QUARTER - CONTEXT) // (256 * MIB)
    assert f"granted {granted} then 2" in run(yard, "rtx4090-quarter", tenant, "fill", "plain", str(256 * MIB))


def test_the_offer_the_lease_and_the_doctor_say_who_enforces_it_and_what_that_leaves_open(yard: RealYard) -> None:
    offers = {offer["name"]: offer for offer in yard.json("offers")}
    assert offers["rtx4090-quarter"]["guarantee"] == "cooperative"
    yard.run("run", "--offer", "rtx4090-half", "--instance", "--name", "told", "--", "sleep", "600")
    (lease,) = yard.json("show", "told")["leases"]
    (cut,) = lease["slices"]
    assert cut["guarantee"] == "cooperative"
    assert any("go around" in each for each in cut["not_protected"])
    assert any("open the card" in each for each in cut["not_protected"])
    listed = httpx.get(f"{yard.address}/v1/leases", headers={"Authorization": f"Bearer {yard.token}"}).json()["items"]
    assert [each["slices"] for each in listed if each["id"] == lease["id"]] == [lease["slices"]]
    answer = httpx.get(f"{yard.address}/v1/doctor", headers={"Authorization": f"Bearer {yard.token}"}).json()
    (fraction,) = {str(each) for card in answer["cards"] for each in card["guarantees"] if each["shape"] == "fraction"}
    assert "cooperative" in fraction
    assert "go around" in fraction
    assert {"slices"} <= {finding["name"] for finding in answer["findings"] if finding["ok"]}
    yard.run("rm", "told")


def test_nvidia_tools_see_the_slice(yard: RealYard) -> None:
    program = (
        "import pynvml as n; n.nvmlInit(); card = n.nvmlDeviceGetHandleByIndex(0); "
        "print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetMemoryInfo(card).total)"
    )
    assert f"1 {QUARTER}" in run(yard, "rtx4090-quarter", sys.executable, "-c", program)


def test_two_tenants_of_one_card_do_not_take_each_others_memory(yard: RealYard, tenant: str) -> None:
    yard.run(
        "run",
        "--offer",
        "rtx4090-half",
        "--instance",
        "--name",
        "holder",
        "--",
        "sh",
        "-c",
        f"sleep 600 | {tenant} hold {8192 * MIB}",
    )
    wait_for(lambda: "holding" in yard.run("logs", "holder"))
    half = 24576 * MIB // 2
    assert f"free {half - CONTEXT} total {half}" in run(yard, "rtx4090-half", tenant, "info")
    yard.run("rm", "holder")


def test_what_a_killed_program_held_comes_back_while_its_unit_lives_on(yard: RealYard, tenant: str) -> None:
    yard.run(
        "run",
        "--offer",
        "rtx4090-quarter",
        "--instance",
        "--name",
        "box",
        "--",
        "sh",
        "-c",
        f"sleep 600 | {tenant} hold {1024 * MIB}; sleep 600",
    )
    wait_for(lambda: "holding" in yard.run("logs", "box"))
    (pid,) = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and holds(p, tenant)]
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    wait_for(lambda: f"free {QUARTER - CONTEXT}" in yard.run("exec", "box", "--", tenant, "info"))
    assert time.monotonic() - begun < 5
    yard.run("rm", "box")


def holds(process: Path, tenant: str) -> bool:
    try:
        return (process / "cmdline").read_bytes().startswith(f"{tenant}\0hold".encode())
    except OSError:
        return False


def test_a_program_that_goes_around_the_library_is_told_of_once(yard: RealYard, tenant: str) -> None:
    around = f"sleep 600 | LD_LIBRARY_PATH={built() / 'emulator'} {tenant} hold {1024 * MIB}"
    yard.run("run", "--offer", "rtx4090-quarter", "--instance", "--name", "rogue", "--", "sh", "-c", around)
    yard.run(
        "run",
        "--offer",
        "rtx4090-quarter",
        "--instance",
        "--name",
        "good",
        "--",
        "sh",
        "-c",
        f"sleep 600 | {tenant} hold {1024 * MIB}",
    )
    wait_for(lambda: "holding" in yard.run("logs", "rogue") and "holding" in yard.run("logs", "good"))
    escapes = wait_for(lambda: [event for event in events(yard) if event["kind"] == "slice.escaped"], seconds=40)
    assert [event["subject"] for event in escapes] == [yard.json("show", "rogue")["id"]]
    assert escapes[0]["data"]["used_bytes"] >= 1024 * MIB
    assert escapes[0]["data"]["ended"] is False  # unless the operator wants that
    assert yard.json("show", "rogue")["state"] == "running"
    yard.run("rm", "rogue", "good")


def events(yard: RealYard) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {yard.token}"}
    return httpx.get(f"{yard.address}/v1/events?limit=500", headers=headers).json()["items"]


def test_verify_says_in_words_and_to_programs_what_held(yard: RealYard) -> None:
    yard.run("run", "--offer", "rtx4090-quarter", "--instance", "--name", "tried", "--", "sleep", "600")
    told = yard.json("verify", "tried")
    got = {(check["name"], check["way"]): check for check in told["checks"]}
    assert {check["held"] for check in told["checks"]} == {True}
    for way in ("plain", "managed", "async", "physical"):
        assert QUARTER - CONTEXT - 64 * MIB <= got["memory", way]["got"] <= QUARTER  # it tried, and got what is its own
    assert got["shown", "total"]["got"] == QUARTER
    for way in ("kernels", "graphs"):
        assert 0 < got["compute", way]["got"] <= 290_000
    yard.run("rm", "tried")


def test_verify_says_so_where_a_slice_does_not_hold(yard: RealYard) -> None:
    yard.run("run", "--offer", "rtx4090-quarter", "--instance", "--name", "wider", "--", "sleep", "600")
    (lease,) = yard.json("show", "wider")["leases"]
    (file,) = yard.state.glob(f"slices/{lease['id']}-*/slice")
    card = SliceCard(lease["slices"][0]["card_uuid"], 2 * QUARTER, 1_000_000, CONTEXT)
    emulator = built() / "emulator"
    wider = SliceLimits("wider", [card], file.with_name("ledger"), emulator / "libcuda.so.1", None)
    file.chmod(0o644)
    file.write_bytes(encode(wider))
    file.chmod(0o444)
    done = yard.cli("verify", "wider")
    assert done.returncode == 1, f"{done.stdout}{done.stderr}"
    assert "memory (plain)" in done.stdout
    assert "EXCEEDED" in done.stdout
    assert "The slice does not hold" in done.stdout
    yard.run("rm", "wider")
    yard.run("run", "--offer", "rtx4090-quarter", "--instance", "--name", "gone", "--", "sleep", "600")
    yard.run("stop", "gone")
    assert yard.cli("verify", "gone").returncode == 6  # nothing runs to try it in
    assert yard.cli("verify", "gone", "--replica", "7").returncode == 2
    assert yard.cli("verify", "nobody").returncode == 5
    yard.run("rm", "gone")


def test_slices_end_with_their_workload(yard: RealYard, tenant: str) -> None:
    slices = yard.state / "slices"
    for workload in yard.json("ps"):
        yard.run("rm", workload["name"])
    wait_for(lambda: [entry.name for entry in slices.iterdir()] == ["clocks"])
