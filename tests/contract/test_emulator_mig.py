"""MIG on the emulated driver, under NVIDIA's own Python bindings: instances made by NVML, and programs inside of them."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_emulator_time import program as program
from tests.contract.test_emulator_time import said
from tests.contract.test_emulator_time import start as start

from gpuyard.testing import Machine

pytest.importorskip("cuda.bindings.driver")
pytest_plugins = ["gpuyard.testing.fixtures"]

Make = Callable[..., Machine]
Start = Callable[..., "subprocess.Popen[str]"]
MIB = 1 << 20
SMALL, MIDDLE, LARGE = (19, 6, 1), (9, 4, 4), (0, 0, 8)  # profile, start and size of 1g, 3g and 7g

MAKER = """
import pynvml as n, sys
from gpuyard.hardware import mig_nvidia as mig
from gpuyard.model.mig import MigPlace
say = []
n.nvmlInit()
card = n.nvmlDeviceGetHandleByIndex(0)
def made(*place):
    return mig.make(n, card, MigPlace(*place))
def code(call, *arguments):
    try:
        call(*arguments)
    except n.NVMLError as error:
        return error.value
    return 0
"""
INSIDE = """
from cuda.bindings import driver as d
say = []
def ok(answer):
    code, *values = answer
    assert code == 0, code
    return values[0] if len(values) == 1 else values
begun = int(d.cuInit(0)[0])
def context():
    ok(d.cuCtxSetCurrent(ok(d.cuDevicePrimaryCtxRetain(0))))
"""


def run(machine: Machine, prelude: str, script: str, *words: str, **variables: str) -> list[Any]:
    """What the script put into `say`."""
    code = f"{prelude}\n{textwrap.dedent(script)}\nprint(say)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=machine.env() | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def make_on(machine: Machine, *places: tuple[int, int, int]) -> list[str]:
    """The UUIDs of instances that are made there."""
    return run(machine, MAKER, f"say += [made(*place) for place in {places!r}]")


def test_an_instance_that_computes_is_a_device_with_its_own_memory(fake_driver: Make) -> None:
    machine = fake_driver("1xH100:mig")
    script = """
    say.append(code(n.nvmlDeviceGetMigDeviceHandleByIndex, card, 0))
    uuid = made(19, 6, 1)
    device = n.nvmlDeviceGetMigDeviceHandleByIndex(card, 0)
    say += [uuid == made(19, 6, 1), n.nvmlDeviceGetUUID(device) == uuid, uuid.startswith("MIG-"), n.nvmlDeviceGetName(device),
            n.nvmlDeviceGetMemoryInfo(device).total >> 20, n.nvmlDeviceGetMemoryInfo(device, version=n.nvmlMemory_v2).free >> 20,
            n.nvmlDeviceGetGpuInstanceId(device), n.nvmlDeviceGetComputeInstanceId(device),
            n.nvmlDeviceIsMigDeviceHandle(device).value, n.nvmlDeviceIsMigDeviceHandle(card).value,
            n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)) == n.nvmlDeviceGetUUID(card),
            n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(uuid)) == uuid, n.nvmlDeviceGetAttributes(device).multiprocessorCount,
            n.nvmlDeviceGetMaxMigDeviceCount(card), code(n.nvmlDeviceGetGpuInstanceId, card),
            code(n.nvmlDeviceGetUtilizationRates, card), code(n.nvmlDeviceGetTemperature, device, 0)]
    """
    name = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert run(machine, MAKER, script) == [
        6, True, True, True, name, 9728, 9728, 1, 0, 1, 0, True, True, 16, 7, 3, 3, 3
    ]  # fmt: skip


def test_a_program_sees_its_instance_alone_and_its_limit(fake_driver: Make) -> None:
    machine = fake_driver("1xRTX4090,1xH100:mig", context_bytes=100 * MIB)
    script = "card = n.nvmlDeviceGetHandleByIndex(1); say += [made(19, 6, 1), made(9, 0, 4)]"
    small, _ = run(machine, MAKER, script)
    script = """
    context()
    free, total = ok(d.cuMemGetInfo())
    say += [begun, ok(d.cuDeviceGetCount()), ok(d.cuDeviceTotalMem(0)) >> 20, free >> 20, total >> 20,
            ok(d.cuDeviceGetAttribute(d.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0)),
            ok(d.cuDeviceGetName(96, 0)).split(b"\\0")[0].decode(),
            int(d.cuMemAlloc(9628 << 20)[0]), int(d.cuMemAlloc(1)[0])]
    """
    name = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    seen = [0, 1, 9728, 9628, 9728, 16, name, 0, 2]
    assert run(machine, INSIDE, script, CUDA_VISIBLE_DEVICES=small) == seen
    assert run(machine, INSIDE, script, CUDA_VISIBLE_DEVICES=f"{small},0") == seen


def test_a_card_in_mig_mode_without_an_instance_is_no_device(fake_driver: Make) -> None:
    machine = fake_driver("1xH100:mig")
    assert run(machine, INSIDE, "say.append(begun)") == [100]
    for wish in ("0", machine.cards[0].uuid, "MIG-00000000-0000-0000-0000-000000000000"):
        assert run(machine, INSIDE, "say.append(begun)", CUDA_VISIBLE_DEVICES=wish) == [100]
    make_on(machine, SMALL)
    assert run(machine, INSIDE, "say += [begun, ok(d.cuDeviceTotalMem(0)) >> 20]") == [0, 9728]


def test_cards_beside_one_in_mig_mode_are_seen_as_ever(fake_driver: Make) -> None:
    machine = fake_driver("1xH100:mig,1xRTX4090")
    make_on(machine, SMALL)
    assert run(machine, INSIDE, "say += [ok(d.cuDeviceGetCount()), ok(d.cuDeviceTotalMem(0)) >> 20]") == [1, 24576]


def test_an_instance_in_use_stays_and_another_in_its_place_is_another(fake_driver: Make, start: Start) -> None:
    machine = fake_driver("1xH100:mig")
    (uuid,) = make_on(machine, SMALL)
    holder = run_holder(machine, uuid)
    script = """
    device = n.nvmlDeviceGetHandleByUUID(sys.argv[1])
    say += [code(mig.remove, n, card, MigPlace(19, 6, 1)),
            [(p.gpuInstanceId, p.computeInstanceId) for p in n.nvmlDeviceGetComputeRunningProcesses(card)],
            len(n.nvmlDeviceGetComputeRunningProcesses(device)), n.nvmlDeviceGetMemoryInfo(device).used >> 20]
    """
    assert run(machine, MAKER, script, uuid) == [19, [(1, 0)], 1, 500]
    holder.kill()
    holder.communicate()
    script = "mig.remove(n, card, MigPlace(19, 6, 1)); mig.remove(n, card, MigPlace(19, 6, 1)); say.append(len(mig.read(n, card).taken))"
    assert run(machine, MAKER, script) == [0]
    script = f"""
    import subprocess
    say.append(begun)
    again = {MAKER!r} + "mig.remove(n, card, MigPlace(19, 6, 1)); made(19, 6, 1)"
    subprocess.run([sys.executable, "-c", again], check=True)
    say.append(int(d.cuDevicePrimaryCtxRetain(0)[0]))
    """
    make_on(machine, SMALL)
    assert run(machine, "import sys\n" + INSIDE, script, CUDA_VISIBLE_DEVICES=uuid) == [0, 100]


def run_holder(machine: Machine, uuid: str) -> subprocess.Popen[str]:
    """A program that holds 100 MiB and a context in an instance, once it says so."""
    code = INSIDE + "context(); ok(d.cuMemAlloc(100 << 20)); print('held', flush=True); input()"
    environment = machine.env() | {"CUDA_VISIBLE_DEVICES": uuid}
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_mig_mode_stays_on_while_there_are_instances(fake_driver: Make) -> None:
    machine = fake_driver("1xH100:mig")
    make_on(machine, LARGE)
    script = """
    say.append(code(made, 19, 6, 1))
    say.append(n.nvmlDeviceSetMigMode(card, 0))
    mig.remove(n, card, MigPlace(0, 0, 8))
    say += [n.nvmlDeviceSetMigMode(card, 0), code(made, 19, 6, 1)]
    """
    assert run(machine, MAKER, script) == [23, 19, 0, 3]


def test_each_instance_has_its_part_of_the_time_whatever_the_others_do(
    fake_driver: Make, program: Path, start: Start
) -> None:
    del program
    alone = fake_driver("1xH100:mig", clock="virtual")
    (uuid,) = make_on(alone, MIDDLE)
    by_itself = int(said(start(alone, "share", "k_1000000", "1000", CUDA_VISIBLE_DEVICES=uuid)))
    assert by_itself == pytest.approx(1000 * 3 / 7, rel=0.03)
    machine = fake_driver("1xH100:mig", clock="virtual", processes=3, turn_ns=2_000_000)
    small, middle = make_on(machine, SMALL, (9, 0, 4))
    running = [
        start(machine, "share", "k_1000000", "1000", CUDA_VISIBLE_DEVICES=each) for each in (small, middle, middle)
    ]
    done = [int(said(process)) for process in running]
    assert done[0] == pytest.approx(1000 / 7, rel=0.06)
    assert done[1:] == pytest.approx([1000 * 3 / 14] * 2, rel=0.06)


@pytest.mark.parametrize("model", ["A100-40GB", "A100-PCIE-80GB", "H100", "H200"])
def test_the_driver_answers_what_the_catalogue_says(fake_driver: Make, model: str) -> None:
    from gpuyard.catalog import cards, mig

    script = "say += [(p.id, p.name, p.compute_slices, p.memory_bytes, p.size, p.starts, p.most) for p in mig.read(n, card).profiles]"
    told = run(fake_driver(f"1x{model}:mig"), MAKER, script)
    known = mig.profiles_of(cards.find(model))
    assert sorted(told) == sorted(
        (p.id, p.name, p.compute_slices, p.memory_bytes, p.size, p.starts, p.most) for p in known
    )


def test_a_card_that_has_no_mig_cannot_be_in_that_mode(fake_driver: Make) -> None:
    with pytest.raises(ValueError, match="RTX4090 has no MIG"):
        fake_driver("1xRTX4090:mig")
