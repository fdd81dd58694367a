"""Slices whose memory the driver itself holds: a real yard, real processes in real cgroups, an emulated driver below."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.engines.process import cgroup
from gpuyard.slicing.kernel_limits import cgroup_of
from real_yard import RealYard, wait_for
from slices_in_hand import MIB, compile_tenant

_MOUNT = cgroup.unified_mount()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or _MOUNT is None or not os.access(_MOUNT, os.W_OK), reason="only root makes cgroups (v2)"
    ),
]

QUARTER = 24576 * MIB // 4
CONTEXT = 400 * MIB


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_tenant(tmp_path_factory.mktemp("tenant")))


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealYard]:
    yard = RealYard(
        tmp_path_factory.mktemp("yard"), "--simulate", "2xRTX4090", "--runtime", "process", "--kernel-limits"
    )
    yard.up()
    yield yard
    yard.close()


def limits(yard: RealYard) -> list[Path]:
    return list((yard.state / "emulator.groups").glob("**/dmem.max"))


def test_offers_leases_and_the_doctor_say_kernel_and_what_it_leaves_open(yard: RealYard) -> None:
    levels = {offer["name"]: offer["guarantee"] for offer in yard.json("offers")}
    assert (levels["rtx4090-quarter"], levels["rtx4090-full"]) == ("kernel", "cooperative")
    (cut,) = yard.instance("told", "sleep", "600")["slices"]
    assert cut["guarantee"] == "kernel"
    assert any("root" in each for each in cut["not_protected"])
    (finding,) = (each for each in yard.get("doctor")["findings"] if each["name"] == "kernel_limits")
    assert finding["ok"] is True
    yard.run("rm", "told")
    wait_for(lambda: not limits(yard))  # they end with the unit's group


def test_a_program_past_the_library_gets_its_slice_and_verify_says_so(yard: RealYard, tenant: str) -> None:
    yard.instance("box", "sleep", "600")
    driver = next((yard.state / "slices").glob("*/slice")).read_bytes()  # names the driver's own library
    folder = Path(next(part for part in driver.split(b"\0") if part.endswith(b"/libcuda.so.1")).decode()).parent
    granted = (QUARTER - CONTEXT) // (256 * MIB)
    words = ("env", f"LD_LIBRARY_PATH={folder}", tenant, "fill", "plain", str(256 * MIB))
    assert f"granted {granted} then 2" in yard.run("exec", "box", "--", *words)
    told = yard.json("verify", "box")
    assert (told["guarantee"], told["held"]) == ("kernel", True)
    assert {check["way"] for check in told["checks"] if check["name"] == "memory_past"} == {
        "plain",
        "async",
        "physical",
    }
    yard.run("rm", "box")


def test_a_limit_that_was_lifted_is_set_again_by_the_next_yard_too_and_told_of(yard: RealYard, tenant: str) -> None:
    yard.instance("long", "sh", "-c", f"tail -f /dev/null | {tenant} hold {64 * MIB}")
    yard.kill()
    (limit,) = limits(yard)
    limit.unlink()
    yard.up()  # without a word of it this time: what holds, holds
    assert {offer["guarantee"] for offer in yard.json("offers") if offer["name"] == "rtx4090-quarter"} == {"kernel"}
    told = wait_for(
        lambda: [e for e in yard.get("events?limit=500")["items"] if e["kind"] == "slice.limit_restored"],
        seconds=30,
    )
    assert told[0]["subject"] == yard.json("show", "long")["id"]
    assert limit.read_text().split()[1] == str(QUARTER)
    yard.run("rm", "long")


def test_a_yard_that_is_told_not_to_use_them_does_not(tmp_path: Path) -> None:
    yard = RealYard(tmp_path, "--simulate", "1xRTX4090", "--runtime", "process", "--no-kernel-limits")
    yard.up()
    try:
        assert {offer["guarantee"] for offer in yard.json("offers")} == {"cooperative"}
        assert cgroup_of(os.getpid()) is not None
    finally:
        yard.close()
