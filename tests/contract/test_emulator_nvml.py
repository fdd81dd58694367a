"""The emulated NVML under NVIDIA's own Python bindings, and the machine as the command line starts it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from gpuyard.model.errors import YardError
from gpuyard.testing import Machine, emulate
from gpuyard.testing.specs import parse

pytest_plugins = ["gpuyard.testing.fixtures"]

Make = Callable[..., Machine]
MIB = 1 << 20

PRELUDE = """
import pynvml as n, ctypes
say = []
def code(call, *arguments):
    try:
        call(*arguments)
    except n.NVMLError as error:
        return error.value
    return 0
def compute(bytes_, name=b"k_50000000", launches=0):
    driver, context, address, module, function = ctypes.CDLL("libcuda.so.1"), *(ctypes.c_void_p() for _ in range(4))
    assert driver.cuInit(0) == 0 and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxSetCurrent(context) == 0
    assert driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(bytes_)) == 0
    driver.cuModuleLoadData(ctypes.byref(module), b"x"); driver.cuModuleGetFunction(ctypes.byref(function), module, name)
    for _ in range(launches):
        assert driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None) == 0
    return driver
n.nvmlInit()
"""


def run(machine: Machine, script: str) -> list[Any]:
    """What the script put into `say`."""
    code = f"{PRELUDE}\n{textwrap.dedent(script)}\nprint(say)"
    done = subprocess.run([sys.executable, "-c", code], env=machine.env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_the_cards_are_those_of_the_catalogue(fake_driver: Make) -> None:
    machine = fake_driver("1xRTX4090,1xH100")
    script = """
    for i in range(n.nvmlDeviceGetCount()):
        h = n.nvmlDeviceGetHandleByIndex(i)
        say.append((n.nvmlDeviceGetName(h), n.nvmlDeviceGetUUID(h), n.nvmlDeviceGetPciInfo(h).busId, n.nvmlDeviceGetMemoryInfo(h).total,
                    n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2).free, n.nvmlDeviceGetEnforcedPowerLimit(h),
                    n.nvmlDeviceGetCudaComputeCapability(h), n.nvmlDeviceGetMaxPcieLinkWidth(h)))
    """
    first, second = machine.cards
    assert run(machine, script) == [
        (first.name, first.uuid, "00000000:01:00.0", 24 << 30, 24 << 30, 450_000, (8, 9), 16),
        (second.name, second.uuid, "00000000:02:00.0", 80 << 30, 80 << 30, 700_000, (9, 0), 16),
    ]


def test_a_card_is_found_by_uuid_and_address_and_by_nothing_else(fake_driver: Make) -> None:
    machine = fake_driver("2xRTX4090")
    card = machine.cards[1]
    script = f"""
    say.append(n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID({card.uuid!r})))
    say.append(n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByPciBusId({card.pci_address!r})))
    say.append(code(n.nvmlDeviceGetHandleByUUID, "GPU-{uuid.UUID(int=1)}")); say.append(code(n.nvmlDeviceGetHandleByIndex, 2))
    n.nvmlShutdown(); say.append(code(n.nvmlDeviceGetCount))
    """
    assert run(machine, script) == [1, 1, 6, 2, 1]


def test_versions_are_the_machine_s(fake_driver: Make) -> None:
    machine = fake_driver(driver_version="615.71.09", cuda_version=13040)
    script = "say += [n.nvmlSystemGetDriverVersion(), n.nvmlSystemGetCudaDriverVersion()]"
    assert run(machine, script) == ["615.71.09", 13040]


def test_a_process_is_listed_with_its_memory_and_work(fake_driver: Make) -> None:
    machine = fake_driver(context_bytes=100 * MIB)
    script = """
    import os, time
    h = n.nvmlDeviceGetHandleByIndex(0)
    n.nvmlDeviceGetUtilizationRates(h)
    driver = compute(50 << 20, launches=10)
    (process,) = n.nvmlDeviceGetComputeRunningProcesses(h)
    say += [process.pid == os.getpid(), process.usedGpuMemory >> 20, n.nvmlDeviceGetMemoryInfo(h).used >> 20]
    driver.cuCtxSynchronize()
    say.append(n.nvmlDeviceGetUtilizationRates(h).gpu >= 90); say.append(n.nvmlDeviceGetPowerUsage(h) > 300_000)
    (sample,) = n.nvmlDeviceGetProcessUtilization(h, 0)
    say += [sample.pid == os.getpid(), sample.smUtil >= 90]
    driver.cuDevicePrimaryCtxReset_v2(0)
    say += [len(n.nvmlDeviceGetComputeRunningProcesses(h)), n.nvmlDeviceGetMemoryInfo(h).used]
    """
    assert run(machine, script) == [True, 150, 150, True, True, True, True, 0, 0]


def test_what_a_consumer_card_lacks_is_not_supported(fake_driver: Make) -> None:
    script = """
    h = n.nvmlDeviceGetHandleByIndex(0)
    for call in (n.nvmlDeviceGetMigMode, n.nvmlDeviceGetEccMode, n.nvmlDeviceGetSerial, n.nvmlDeviceGetRetiredPagesPendingStatus):
        say.append(code(call, h))
    say.append(code(n.nvmlDeviceSetMigMode, h, 1))
    """
    assert run(fake_driver(), script) == [3, 3, 3, 3, 3]


def test_exclusive_mode_lets_one_process_in(fake_driver: Make) -> None:
    machine = fake_driver()
    script = """
    import subprocess, sys
    n.nvmlDeviceSetComputeMode(n.nvmlDeviceGetHandleByIndex(0), n.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
    driver = compute(1024)
    other = "import ctypes; d = ctypes.CDLL('libcuda.so.1'); d.cuInit(0); c = ctypes.c_void_p(); print(d.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0))"
    say.append(int(subprocess.run([sys.executable, "-c", other], capture_output=True, text=True).stdout))
    """
    assert run(machine, script) == [46]  # CUDA_ERROR_DEVICE_UNAVAILABLE


def test_mig_profiles_have_their_places_and_instances_take_them(fake_driver: Make) -> None:
    script = """
    h = n.nvmlDeviceGetHandleByIndex(0)
    say += [code(n.nvmlDeviceCreateGpuInstance, h, 9), n.nvmlDeviceSetMigMode(h, 1), n.nvmlDeviceGetMigMode(h)]
    info = n.nvmlDeviceGetGpuInstanceProfileInfo(h, n.NVML_GPU_INSTANCE_PROFILE_3_SLICE)
    say += [info.id, info.sliceCount, info.instanceCount, info.memorySizeMB]
    count, places = ctypes.c_uint(9), (n.c_nvmlGpuInstancePlacement_t * 9)()
    n.nvmlDeviceGetGpuInstancePossiblePlacements(h, info.id, places, ctypes.byref(count))
    say.append([(p.start, p.size) for p in places[: count.value]])
    first = n.nvmlDeviceCreateGpuInstance(h, info.id)
    place = n.nvmlGpuInstanceGetInfo(first).placement
    say += [(place.start, place.size), n.nvmlDeviceGetGpuInstanceRemainingCapacity(h, 19), n.nvmlDeviceGetGpuInstanceRemainingCapacity(h, 0)]
    say += [code(n.nvmlDeviceCreateGpuInstance, h, 0), n.nvmlDeviceSetMigMode(h, 0)]
    n.nvmlGpuInstanceDestroy(first)
    say += [code(n.nvmlGpuInstanceDestroy, first), n.nvmlDeviceSetMigMode(h, 0)]
    """
    assert run(fake_driver("1xA100-40GB"), script) == [
        3, 0, [1, 1], 9, 3, 2, 19968, [(0, 4), (4, 4)], (0, 4), 3, 0, 23, 19, 2, 0,
    ]  # fmt: skip


def test_a_card_that_goes_is_lost_to_those_who_hold_it(fake_driver: Make) -> None:
    machine = fake_driver("2xRTX4090")
    machine.inject("nvmlDeviceGetName", 15, card=1)
    script = "say += [code(n.nvmlDeviceGetName, n.nvmlDeviceGetHandleByIndex(i)) for i in (0, 1, 1)]"
    assert run(machine, script) == [0, 15, 0]
    machine.lose(1)
    script = (
        "say += [n.nvmlDeviceGetCount(), code(n.nvmlDeviceGetHandleByIndex, 0), code(n.nvmlDeviceGetHandleByIndex, 1)]"
    )
    assert run(machine, script) == [2, 0, 15]
    machine.unplug(1)
    assert run(machine, "say.append(n.nvmlDeviceGetCount())") == [1]


def test_the_probe_of_this_machine_sees_the_emulated_cards(fake_driver: Make) -> None:
    machine = fake_driver("2xRTX4090,1xA100-80GB")
    script = """
    from gpuyard.hardware.nvidia import NvidiaProbe
    n.nvmlShutdown()
    (node,) = NvidiaProbe().probe().nodes
    say += [(card.model, card.uuid, card.pci_address) for card in node.cards]
    """
    assert run(machine, script) == [(card.model, card.uuid, card.pci_address) for card in machine.cards]


def test_a_command_runs_on_an_emulated_machine_and_its_exit_code_comes_back() -> None:
    count = "import pynvml as n, sys; n.nvmlInit(); sys.exit(40 + n.nvmlDeviceGetCount())"
    assert emulate("2xRTX4090", [sys.executable, "-c", count]) == 42
    assert emulate("1xRTX4090", ["sh", "-c", "kill -TERM $$"]) == 128 + 15


@pytest.mark.parametrize("text", ["", "x", "0,", "3 RTX4090x", "1xRTX4090,,"])
def test_a_list_of_cards_that_is_none_is_refused(text: str) -> None:
    with pytest.raises((ValueError, YardError)):
        parse(text)


def test_a_machine_holds_one_to_sixteen_cards() -> None:
    with pytest.raises(ValueError, match="1 to 16"):
        Machine("17xRTX4090")


def test_the_same_list_gives_the_same_cards_and_another_seed_others() -> None:
    assert parse("2xRTX4090") == parse("2xRTX4090")
    assert {card.uuid for card in parse("2xRTX4090", "a")}.isdisjoint(card.uuid for card in parse("2xRTX4090", "b"))


def test_a_file_that_is_no_machine_gives_no_driver(fake_driver: Make, tmp_path: Any) -> None:
    wrong = tmp_path / "machine"
    wrong.write_bytes(b"GPUYEMU1" * 100)
    code = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuInit(0), ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=fake_driver().env() | {"GPUYARD_EMULATOR": str(wrong)},
        text=True,
        capture_output=True,
    )
    assert (done.stdout, done.returncode) == ("100 9\n", 0)
    assert "not an emulated machine" in done.stderr


def test_the_energy_that_a_card_tells_grows_with_its_work_and_is_read_by_uuid(fake_driver: Make) -> None:
    machine = fake_driver("2xRTX4090")
    script = """
    from gpuyard.hardware.activity import nvidia_activity, nvidia_energy
    before = nvidia_energy(); n.nvmlInit()
    driver = compute(1 << 20, launches=10); driver.cuCtxSynchronize()
    after = nvidia_energy()
    say += [sorted(before) == sorted(after) == sorted(nvidia_activity()), len(after)]
    say.append(sorted(after[uuid] > before[uuid] for uuid in after))
    """
    assert run(machine, script) == [True, 2, [False, True]]
