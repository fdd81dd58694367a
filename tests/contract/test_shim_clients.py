"""Real clients on a slice: nvidia-ml-py and cuda-bindings, which know nothing of it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.slicing.building import built
from gpuyard.slicing.layout import NATIVE
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

LIMIT = 2048 * MIB

NVML = """
import json, pynvml as n
n.nvmlInit()
cards = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
memory = [(m.total, m.free, m.used) for m in map(n.nvmlDeviceGetMemoryInfo, cards)]
processes = [(p.pid, p.usedGpuMemory) for c in cards for p in n.nvmlDeviceGetComputeRunningProcesses(c)]
try:
    n.nvmlDeviceSetPowerManagementLimit(cards[0], 100000)
    power = "set"
except n.NVMLError as error:
    power = str(error)
try:
    n.nvmlDeviceGetHandleByUUID(OTHER)
    other = "seen"
except n.NVMLError as error:
    other = "unseen"
names = [n.nvmlDeviceGetName(c) for c in cards]
print(json.dumps({"uuids": [n.nvmlDeviceGetUUID(c) for c in cards], "memory": memory, "processes": processes,
                  "power": power, "other": other, "names": names}))
"""

BINDINGS = """
import json
from cuda.bindings import driver as d
def ok(result, *values):
    assert int(result) == 0, result
    return values[0] if len(values) == 1 else values
ok(*d.cuInit(0))
device = ok(*d.cuDeviceGet(0))
context = ok(*d.cuDevicePrimaryCtxRetain(device))
ok(*d.cuCtxSetCurrent(context))
free, total = ok(*d.cuMemGetInfo())
held = []
while True:
    result, pointer = d.cuMemAlloc(64 << 20)
    if int(result):
        break
    held.append(pointer)
for pointer in held:
    ok(*d.cuMemFree(pointer))
again, _ = ok(*d.cuMemGetInfo())
print(json.dumps([free, total, len(held), int(result), again]))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with Machine("2xRTX4090") as machine:
        shop = Shop(machine, folder / "slices", compile_tenant(folder))
        yield shop
        shop.close()


def python(environment: dict[str, str], program: str) -> object:
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nvml_shows_the_slice_its_memory_and_its_processes_alone(shop: Shop) -> None:
    mine, theirs = shop.cut("mine", LIMIT, card=1), shop.cut("theirs", LIMIT, card=1)
    for environment in (mine, theirs):
        environment["CUDA_VISIBLE_DEVICES"] = shop.machine.cards[1].uuid
    holders = [shop.start(mine, "hold", 100 * MIB), shop.start(theirs, "hold", 200 * MIB)]
    for holder in holders:
        assert holder.stdout is not None
        holder.stdout.readline()
    told = python(mine, NVML.replace("OTHER", repr(shop.machine.cards[0].uuid)))
    assert isinstance(told, dict)
    assert told["uuids"] == [shop.machine.cards[1].uuid]
    assert told["memory"] == [[LIMIT, LIMIT - 500 * MIB, 500 * MIB]]
    assert told["processes"] == [[holders[0].pid, 500 * MIB]]
    assert told["other"] == "unseen"
    assert "ermission" in told["power"]
    for holder in holders:
        holder.kill()
        holder.wait()


def test_nvml_without_a_slice_is_refused(shop: Shop) -> None:
    environment = shop.cut("none", LIMIT)
    environment["GPUYARD_SLICE"] = "/nowhere"
    done = subprocess.run([sys.executable, "-c", NVML], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "gpuyard: NVML is refused here" in done.stderr


def test_cuda_bindings_reach_the_shim_through_cugetprocaddress(shop: Shop) -> None:
    pytest.importorskip("cuda.bindings")
    free, total, granted, result, again = python(shop.cut("bindings", LIMIT), BINDINGS)  # type: ignore[misc]
    assert total == LIMIT
    assert free == again == LIMIT - 400 * MIB
    assert (granted, result) == (free // (64 * MIB), 2)
    assert shop.machine.card(0).peak_bytes <= LIMIT


def exported(library: Path) -> set[str]:
    listed = subprocess.run(["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}


@pytest.mark.parametrize(("api", "library"), [("cuda", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")])
def test_every_entry_point_of_the_headers_is_there_and_classified(api: str, library: str) -> None:
    with (NATIVE / "names" / f"{api}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} <= {"pass", "alloc", "free", "launch", "query", "context", "deny"}
    names = {row["name"] for row in rows}
    assert len(names) == len(rows) > 400
    assert names <= exported(built() / "shim" / library)


def test_names_that_say_that_they_allocate_or_launch_are_not_passed_on_unread() -> None:
    harmless = {
        "cuMemAllocHost", "cuMemAllocHost_v2", "cuMemHostAlloc", "cuGraphAddMemAllocNode", "cuGraphMemAllocNodeGetParams",
        "cuLaunchHostFunc", "cuLaunchHostFunc_v2", "cuLaunchHostFunc_ptsz", "cuLaunchHostFunc_v2_ptsz",
        "cuMemGetAllocationGranularity", "cuMemGetAllocationPropertiesFromHandle", "cuTensorMapSetAllocationClass",
    }  # fmt: skip
    with (NATIVE / "names" / "cuda.csv").open(newline="") as file:
        passed = {row["name"] for row in csv.DictReader(file) if row["class"] == "pass"}
    suspicious = {name for name in passed if "Alloc" in name or name.startswith(("cuLaunch", "cuGraphLaunch"))}
    assert suspicious == harmless & suspicious


def test_a_program_that_never_uses_cuda_is_not_touched(shop: Shop) -> None:
    environment = {**shop.cut("idle", LIMIT), "GPUYARD_SLICE": "/nowhere"}
    done = subprocess.run(["true"], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert python(environment, "import ctypes; ctypes.CDLL('libcuda.so.1'); print(1)") == 1
