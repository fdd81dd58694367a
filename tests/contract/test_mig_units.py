"""Units in MIG instances: real processes on the emulated driver, whose instances come and go with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuyard.engines.process.runtime import ProcessRuntime
from gpuyard.engines.runtime import UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.mig import MigCard, MigCut, MigPlace
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing import mig_calls
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.mig_keeper import AGAIN_NS, MigKeeper
from gpuyard.slicing.mig_trial import TRIAL, try_instances
from gpuyard.testing import Machine

from .conftest import RealClock, RuntimeCase

pytest_plugins = ["gpuyard.testing.fixtures"]

Make = Callable[..., Machine]
MIB = 1 << 20
SMALL, OTHER = MigPlace(19, 6, 1), MigPlace(19, 5, 1)
LOOK = (
    "import ctypes as c, json, os; d = c.CDLL('libcuda.so.1'); n, t, p = c.c_int(), c.c_size_t(), c.c_uint64(); "
    "told = [d.cuInit(0), d.cuDeviceGetCount(c.byref(n)), n.value]; x = c.c_void_p(); "
    "d.cuDevicePrimaryCtxRetain(c.byref(x), 0); d.cuCtxSetCurrent(x); d.cuDeviceTotalMem_v2(c.byref(t), 0); "
    "told += [t.value >> 20, d.cuMemAlloc_v2(c.byref(p), c.c_size_t(9 << 30)), d.cuMemAlloc_v2(c.byref(p), c.c_size_t(1 << 30))]; "
    "open('told', 'w').write(json.dumps([told, os.environ['CUDA_VISIBLE_DEVICES']]))"
)


class Bench:
    """A machine with one H100 in MIG mode, and a runtime whose units get instances of it."""

    def __init__(self, machine: Machine, root: Path) -> None:
        self.machine, self.root = machine, root
        libraries = machine.libraries
        self.driver = Driver(
            libraries / "libcuda.so.1", libraries / "libnvidia-ml.so.1", files={"GPUYARD_EMULATOR": machine.path}
        )
        self.uuid = machine.cards[0].uuid
        self.keeper = self.new_keeper()
        self.case = RuntimeCase("process", self.runtime, root)

    def new_keeper(self, boot_id: str = "boot-1") -> MigKeeper:
        """As a yard that begins makes it."""
        return MigKeeper(self.root / "mig", self.driver, boot_id)

    def runtime(self) -> ProcessRuntime:
        """Likewise."""
        runtime = ProcessRuntime(self.root / "yard", RealClock())
        runtime.cut_by_mig(self.keeper)
        return runtime

    def cut(self, place: MigPlace = SMALL, unit: str = "u-1") -> Slice:
        shape = SliceShape(9728 * MIB, 142_857)
        return Slice(unit, self.uuid, shape, Guarantee.KERNEL, MigCut("1g.10gb", place))

    def there(self) -> set[tuple[int, int]]:
        """What is on the card: profiles and starts."""
        return {(p.profile_id, p.start) for p in mig_calls.taken(self.driver, [self.uuid])[self.uuid]}


@pytest.fixture
def bench(fake_driver: Make, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(fake_driver("1xH100:mig", context_bytes=100 * MIB), tmp_path)
    yield made
    made.case.close()


def start(bench: Bench, name: str, *command: str, **more: Any) -> UnitState:
    return bench.case.start(name, *command, slices=(bench.cut(unit=name),), **more).state


def test_a_unit_sees_its_instance_alone_and_leaves_nothing_behind(bench: Bench) -> None:
    mig_calls.make(bench.driver, bench.uuid, OTHER)
    start(bench, "u-1", sys.executable, "-c", LOOK, environment={"CUDA_VISIBLE_DEVICES": "0"})
    bench.case.ended("u-1")
    told, visible = json.loads((bench.root / "yard" / "disks" / "disk-u-1" / "told").read_text())
    assert told == [0, 0, 1, 9728, 0, 2]
    assert visible.startswith("MIG-")
    bench.case.until("u-1", lambda _: bench.there() == {(19, 5)})
    assert bench.keeper.units() == frozenset()


def test_a_yard_that_was_killed_finds_its_units_instances_and_removes_those_of_no_unit(bench: Bench) -> None:
    start(bench, "u-1", "sleep", "600")
    bench.keeper.hold("u-2", bench.cut(OTHER, "u-2"))  # its unit was never begun
    mig_calls.make(bench.driver, bench.uuid, MigPlace(19, 4, 1))  # by hand
    before = bench.there()
    bench.keeper = bench.new_keeper()
    again = bench.runtime()
    assert bench.there() == before - {(19, 5)}
    assert again.observe()["u-1"].state is UnitState.RUNNING
    again.forget("u-1")
    again.observe()
    assert bench.there() == {(19, 4)}


def test_what_was_cut_short_is_gone_on_with(bench: Bench) -> None:
    file = bench.root / "mig" / "u-1.json"
    file.write_text(json.dumps([bench.uuid, 19, 6, 1, "boot-1"]))  # killed before the instance was made
    first = bench.keeper.hold("u-1", bench.cut())["CUDA_VISIBLE_DEVICES"]
    assert bench.new_keeper().hold("u-1", bench.cut())["CUDA_VISIBLE_DEVICES"] == first
    program = (
        "import pynvml as n; n.nvmlInit(); c = n.nvmlDeviceGetHandleByIndex(0); "
        "from gpuyard.hardware import mig_nvidia as m; from gpuyard.model.mig import MigPlace as P; "
        "i = m._at(n, c, P(19, 6, 1)); n.nvmlComputeInstanceDestroy(n.nvmlGpuInstanceGetComputeInstanceById(i, 0))"
    )
    subprocess.run([sys.executable, "-c", program], env=bench.machine.env(), check=True)  # killed half-way through
    assert bench.new_keeper().hold("u-1", bench.cut())["CUDA_VISIBLE_DEVICES"] == first
    assert bench.keeper.release("u-1")
    assert bench.keeper.release("u-1")
    assert bench.there() == set()


def test_an_instance_of_somebody_else_is_never_taken_nor_removed(bench: Bench) -> None:
    mig_calls.make(bench.driver, bench.uuid, MigPlace(9, 4, 4))
    assert bench.keeper.others([bench.uuid]) == {bench.uuid: (MigPlace(9, 4, 4),)}
    with pytest.raises(YardError) as refused:
        bench.keeper.hold("u-1", bench.cut())
    assert refused.value.code == "mig_place_taken"
    bench.keeper.release("u-1")
    assert bench.there() == {(9, 4)}
    (bench.root / "mig" / "u-9.json").write_text(json.dumps([bench.uuid, 9, 4, 4, "boot-0"]))  # of an earlier boot
    assert bench.keeper.others([bench.uuid]) == {bench.uuid: (MigPlace(9, 4, 4),)}
    assert bench.keeper.release("u-9")
    assert bench.there() == {(9, 4)}


def test_an_instance_in_use_is_removed_once_it_is_not(bench: Bench) -> None:
    given = bench.keeper.hold("u-1", bench.cut())
    code = LOOK.replace("open('told', 'w').write", "print").replace("9 << 30", "1 << 20") + "; input()"
    holder = subprocess.Popen(
        [sys.executable, "-u", "-c", code], env=bench.machine.env() | given, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    bench.keeper.end(["u-1"], 0)
    assert bench.keeper.units() == {"u-1"}
    holder.kill()
    holder.communicate()
    bench.keeper.end(["u-1"], AGAIN_NS - 1)  # not at every look
    assert bench.keeper.units() == {"u-1"}
    bench.keeper.end(["u-1"], AGAIN_NS)
    assert bench.keeper.units() == frozenset()


def test_a_card_is_tried_before_anything_is_claimed_of_it(fake_driver: Make, tmp_path: Path) -> None:
    bench = Bench(fake_driver("1xH100:mig"), tmp_path)
    card = MigCard(bench.uuid, True, _profiles())
    assert try_instances(bench.keeper, [card]) == {bench.uuid: None}
    assert bench.there() == set()
    fault = bench.machine.inject("nvmlDeviceCreateGpuInstanceWithPlacement", 4)  # as for who is not root
    assert try_instances(bench.keeper, [card])[bench.uuid] == "pynvml.NVMLError_NoPermission: Insufficient Permissions"
    bench.machine.withdraw(fault)
    mig_calls.make(bench.driver, bench.uuid, MigPlace(0, 0, 8))
    assert try_instances(bench.keeper, [card]) == {bench.uuid: "other instances take all of it"}
    assert TRIAL not in bench.keeper.units()


def _profiles() -> tuple[Any, ...]:
    from gpuyard.catalog import cards, mig

    return mig.profiles_of(cards.find("H100"))
