"""Slices of containers, enforced: a real yard, a real podman, the emulated driver where images have their driver."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuyard.engines.container.runtime import ContainerRuntime
from gpuyard.engines.process.cgroup import unified_mount
from gpuyard.engines.runtime import Unit, UnitState
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.building import built
from gpuyard.slicing.cdi import driver_inside
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.ledger import usage
from gpuyard.slicing.mps_daemon import Ceiling
from gpuyard.testing import Machine
from real_yard import RealYard, wait_for
from slices_in_hand import MIB, compile_tenant

pytestmark = [pytest.mark.slow, pytest.mark.containers]

QUARTER = 24576 * MIB // 4
CONTEXT = 400 * MIB
IMAGE = "localhost/gpuyard-test:cuda"
DRIVER = f"/usr/lib/{os.uname().machine}-linux-gnu/libcuda.so.1"


@pytest.fixture(scope="module")
def image(container_engine: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with this machine's C library, a shell, and the tenant's program. Its variables name libraries too."""
    tree = tmp_path_factory.mktemp("image")
    for folder in ("bin", "tmp", "run", "var/tmp", "proc", "sys", "dev", "etc", "workspace", "opt"):
        (tree / folder).mkdir(parents=True)
    tenant = compile_tenant(tree / "bin")
    programs = [tenant, *(built() / part / "libcuda.so.1" for part in ("shim", "emulator"))]
    linked = "".join(subprocess.run(["ldd", each], capture_output=True, text=True).stdout for each in programs)
    for library in set(re.findall(r"(/\S+) \(0x", linked)):
        (tree / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, tree / library.lstrip("/"))
    shutil.copy(str(shutil.which("busybox")), tree / "bin" / "busybox")
    for name in ("sh", "sleep", "cat", "env", "kill", "ls"):
        (tree / "bin" / name).symlink_to("busybox")
    archive = tree.with_suffix(".tar")
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
    change = ("--change", "ENV LD_LIBRARY_PATH=/opt")
    subprocess.run([*container_engine.command, "import", *change, str(archive), IMAGE], check=True, capture_output=True)
    return IMAGE


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, container_engine: Any, image: str) -> Iterator[RealYard]:
    if os.geteuid() != 0:
        pytest.skip("only root may describe devices in /var/run/cdi")
    yard = RealYard(
        tmp_path_factory.mktemp("yard"), "--simulate", "2xRTX4090", "--runtime", "container", "--on-escape", "stop"
    )
    yard.environment["CONTAINER_HOST"] = f"unix://{container_engine.socket}"
    yard.up()
    yield yard
    yard.close()


def instance(yard: RealYard, name: str, *command: str, offer: str = "rtx4090-quarter") -> None:
    wish = ("--image", IMAGE, "--offer", offer, "--instance", "--name", name, "--stop-grace", "1s")
    yard.run("run", *wish, "--", *command)


@pytest.fixture(scope="module")
def told(yard: RealYard) -> dict[str, str]:
    """What a job in a container printed, by what it tried."""
    tries = {
        "info": "tenant info",
        "fill": f"tenant fill plain {256 * MIB}",
        "no library path": "env LD_LIBRARY_PATH= tenant info",
        "by its path": f"env TENANT_DRIVER={DRIVER} tenant info",
        "variables": "env",
        "write": "echo x > /run/gpuyard/lib/libcuda.so.1; echo x >> /run/gpuyard/slice",
    }
    script = "; ".join(f"echo '== {name}'; {words}" for name, words in tries.items())
    words = ("--env", "GPUYARD_SLICE=/workspace/mine", "--image", IMAGE, "--offer", "rtx4090-quarter")
    printed = yard.cli("run", *words, "--job", "--follow", "--", "sh", "-c", script)
    parts = (printed.stdout + printed.stderr).split("== ")[1:]
    return dict(part.split("\n", 1) for part in parts)


@pytest.fixture(scope="module")
def box(yard: RealYard) -> str:
    """An instance that holds memory of its slice. Tests of this file may run on several workers, with a yard each."""
    instance(yard, "box", "sh", "-c", f"sleep 600 | tenant hold {1024 * MIB}")
    wait_for(lambda: "holding" in yard.run("logs", "box"))
    return "box"


def test_a_container_sees_its_slice_and_gets_no_more_than_that(told: dict[str, str]) -> None:
    assert f"free {QUARTER - CONTEXT} total {QUARTER}" in told["info"]
    granted = (QUARTER - CONTEXT) // (256 * MIB)
    assert f"granted {granted} then 2" in told["fill"]


def test_a_program_that_names_the_driver_by_its_path_or_unsets_the_library_path_is_held_too(
    told: dict[str, str],
) -> None:
    assert f"total {QUARTER}" in told["no library path"]
    assert f"total {QUARTER}" in told["by its path"]


def test_the_variables_of_its_image_stay_and_those_of_its_slice_cannot_be_changed_by_a_tenant(
    told: dict[str, str],
) -> None:
    assert "LD_LIBRARY_PATH=/run/gpuyard/lib:/opt" in told["variables"]
    assert "GPUYARD_SLICE=/run/gpuyard/slice" in told["variables"]
    assert told["write"].count("Read-only file system") == 2


def test_its_offer_and_its_lease_say_cooperative_and_a_session_inside_is_held_with_it(yard: RealYard, box: str) -> None:
    assert {offer["guarantee"] for offer in yard.json("offers")} == {"cooperative"}
    (lease,) = yard.json("show", box)["leases"]
    assert [cut["guarantee"] for cut in lease["slices"]] == ["cooperative"]
    assert f"free {QUARTER - 1024 * MIB - 2 * CONTEXT} total {QUARTER}" in yard.run("exec", box, "--", "tenant", "info")


def test_verify_tries_from_inside_of_a_container(yard: RealYard, box: str) -> None:
    told = yard.json("verify", box)
    assert (told["held"], told["guarantee"]) == (True, "cooperative")
    assert {check["held"] for check in told["checks"]} == {True}


def test_what_a_killed_program_held_comes_back_although_its_pids_are_its_container_s(yard: RealYard) -> None:
    instance(yard, "lives", "sh", "-c", f"sleep 600 | tenant hold {512 * MIB}; sleep 600")
    wait_for(lambda: "holding" in yard.run("logs", "lives"))
    (lease,) = yard.json("show", "lives")["leases"]
    (ledger,) = yard.state.glob(f"slices/{lease['id']}-*/ledger")
    (holder,) = usage(ledger).holders
    (pid,) = holders(512 * MIB)
    assert holder.pid != pid
    time.sleep(1.2)  # two looks of the yard, which must not take the living for dead
    assert usage(ledger).holders == (holder,)
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    wait_for(lambda: not usage(ledger).holders)
    assert time.monotonic() - begun < 3


def holders(held_bytes: int) -> list[int]:
    """The tenants' programs that hold so much, by their pids here."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        try:
            if (process / "cmdline").read_bytes().startswith(f"tenant\0hold\0{held_bytes}\0".encode()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_program_in_a_container_that_goes_around_the_library_is_told_of_and_by_policy_ended(yard: RealYard) -> None:
    around = f"sleep 600 | TENANT_DRIVER=/run/gpuyard/driver/libcuda.so.1 tenant hold {768 * MIB}"
    instance(yard, "rogue", "sh", "-c", around)
    instance(yard, "good", "sh", "-c", f"sleep 600 | tenant hold {896 * MIB}")
    wait_for(lambda: "holding" in yard.run("logs", "rogue") and "holding" in yard.run("logs", "good"))
    escapes = wait_for(lambda: [event for event in events(yard) if event["kind"] == "slice.escaped"], seconds=40)
    assert {event["subject"] for event in escapes} == {yard.json("show", "rogue")["id"]}
    assert escapes[0]["data"]["ended"] is True
    wait_for(lambda: not holders(768 * MIB))
    assert len(holders(896 * MIB)) == 1  # the good one's; its neighbours' boxes may run on this machine too


def events(yard: RealYard) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {yard.token}"}
    return httpx.get(f"{yard.address}/v1/events?limit=500", headers=headers).json()["items"]


def test_slices_and_their_specs_end_with_the_workload_also_over_a_yard_that_is_killed(yard: RealYard, box: str) -> None:
    (lease,) = yard.json("show", box)["leases"]
    (spec,) = Path("/var/run/cdi").glob(f"gpuyard-slice-{lease['id']}-*.json")
    assert json.loads(spec.read_text())["kind"] == "gpuyard.dev/slice"
    yard.kill()
    yard.up()
    wait_for(lambda: yard.json("show", box)["state"] == "running")
    assert f"total {QUARTER}" in yard.run("exec", box, "--", "tenant", "info")
    for workload in yard.json("ps"):
        yard.run("rm", workload["name"])
    wait_for(lambda: [entry.name for entry in (yard.state / "slices").iterdir()] == ["clocks"])
    assert not spec.exists()


@pytest.mark.parametrize("level", [Guarantee.COOPERATIVE, Guarantee.MPS])
def test_the_slice_takes_the_place_of_the_driver_that_nvidia_s_own_spec_mounts(
    container_engine: Any, image: str, tmp_path: Path, level: Guarantee
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may describe devices in /var/run/cdi")
    versioned = DRIVER.replace(".so.1", ".so.615.71.09")
    with Machine("1xRTX4090") as machine, tempfile.TemporaryDirectory() as folder:  # MPS takes no long paths
        uuid, here = machine.cards[0].uuid, machine.libraries / "libcuda.so.1"
        edits = {"mounts": [{"hostPath": str(here), "containerPath": versioned, "options": ["ro", "bind"]}]}
        spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "containerEdits": edits}
        spec["devices"] = [{"name": uuid, "containerEdits": {"env": ["FROM_CDI=yes"]}}]
        file = Path("/var/run/cdi/nvidia-of-a-test.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(spec))
        try:
            driver = driver_inside()
            assert driver is not None
            assert (driver.cuda.inside, uuid in driver.cards) == (Path(versioned), True)
            files, nvml = {"GPUYARD_EMULATOR": machine.path}, machine.libraries / "libnvidia-ml.so.1"
            keeper = SliceKeeper(
                Path(folder) / "slices",
                Driver(here, nvml, context_bytes=CONTEXT, files=files, mps_control=machine.mps_control),
            )
            keeper.multiprocessors = {uuid: machine.cards[0].multiprocessors}
            assert keeper.mps is not None
            keeper.mps.contained = True
            runtime = ContainerRuntime(tmp_path / "yard", HostClock(), container_engine.socket, True)
            runtime.enforce(keeper, driver)
            cut = Slice("ls-1", uuid, SliceShape(QUARTER, 250_000), level)
            unit = Unit(
                name="ls-nvidia-1", disk="d", tenant_id="t", command=("sh", "-c", "tenant info; ls -d /dev/shm/*"), image=image,
                environment={"TENANT_DRIVER": versioned}, secrets={}, mounts=(), ports=(), working_directory=None,
                cpu_milli=1000, memory_bytes=64 << 20, slices=(cut,), simulated_cards=False,
            )  # fmt: skip
            if level is Guarantee.MPS:
                keeper.mps.hold(uuid, Ceiling(250_000, QUARTER))
                (keeper.mps.shared_memory(uuid) / "met").touch()
            runtime.start(unit)
            wait_for(lambda: runtime.observe()[unit.name].state is UnitState.EXITED)

            async def printed() -> list[str]:
                return [line.text async for line in runtime.logs(unit.name)]

            text = [*asyncio.run(printed()), str(runtime.observe()[unit.name].detail)]
            runtime.forget(unit.name)
            runtime.close()
            keeper.watch_mps()
        finally:
            file.unlink()
    assert f"free {QUARTER - CONTEXT} total {QUARTER} device {QUARTER} devices 1" in "".join(text)
    assert ("/dev/shm/met" in text) == (level is Guarantee.MPS)


class HostClock:
    """This machine's clock."""

    boot_id = "boot"

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def now_us(self) -> int:
        return time.time_ns() // 1000


def test_a_container_whose_memory_the_driver_holds_gets_no_more_past_the_library(
    tmp_path_factory: pytest.TempPathFactory, container_engine: Any, image: str
) -> None:
    mount = unified_mount()
    if os.geteuid() != 0 or mount is None or not os.access(mount, os.W_OK):
        pytest.skip("only root makes cgroups (v2)")
    words = ("--simulate", "1xRTX4090", "--runtime", "container", "--kernel-limits")
    yard = RealYard(tmp_path_factory.mktemp("limited"), *words)
    yard.environment["CONTAINER_HOST"] = f"unix://{container_engine.socket}"
    yard.up()
    try:
        instance(yard, "box", "sleep", "600")
        (cut,) = wait_for(lambda: yard.json("show", "box")["leases"][0]["slices"])
        assert cut["guarantee"] == "kernel"
        assert not any("root" in each for each in cut["not_protected"])  # it cannot change its own limit
        wait_for(lambda: yard.json("show", "box")["leases"][0]["state"] == "active")
        past = ("env", "LD_LIBRARY_PATH=/run/gpuyard/driver", "tenant", "fill", "plain", str(256 * MIB))
        assert f"granted {(QUARTER - CONTEXT) // (256 * MIB)} then 2" in yard.run("exec", "box", "--", *past)
        told = yard.json("verify", "box")
        assert told["held"] is True
        assert {check["got"] for check in told["checks"] if check["name"] == "memory_past"} >= {QUARTER - CONTEXT}
        yard.run("rm", "box")
    finally:
        yard.close()
