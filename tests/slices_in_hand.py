"""Tenants' programs on slices of an emulated machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.layout import layout
from gpuyard.slicing.shared_files import ComputeMode
from gpuyard.testing import Machine

MIB = 1 << 20
SOURCE = Path(__file__).parent / "contract" / "tenant.c"


def compile_tenant(folder: Path) -> Path:
    """The tenant's program."""
    path = folder / "tenant"
    subprocess.run(["cc", "-O1", "-w", "-o", str(path), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return path


class Shop:
    """Cuts slices of a machine and starts programs on them."""

    def __init__(self, machine: Machine, folder: Path, program: Path, mode: ComputeMode = ComputeMode.CAP) -> None:
        self.machine, self.program = machine, program
        self.cuda = machine.libraries / "libcuda.so.1"
        driver = Driver(
            self.cuda,
            machine.libraries / "libnvidia-ml.so.1",
            {"GPUYARD_EMULATOR": str(machine.path), "EMULATOR": str(self.cuda)},
            context_bytes=self._context_bytes(),
            turn_ns=machine.turn_ns,
            mps_control=machine.mps_control,
        )
        self.keeper = SliceKeeper(folder, driver, mode)
        self.keeper.multiprocessors = {card.uuid: card.multiprocessors for card in machine.cards}
        self.running: list[subprocess.Popen[str]] = []

    def _context_bytes(self) -> int:
        return 400 * MIB

    def cut(
        self,
        name: str,
        memory_bytes: int,
        compute_ppm: int = 1_000_000,
        card: int = 0,
        level: Guarantee = Guarantee.COOPERATIVE,
    ) -> dict[str, str]:
        """A slice; the variables that a program on it is given."""
        uuid = self.machine.cards[card].uuid
        shape = SliceShape(memory_bytes, compute_ppm)
        cut = self.keeper.for_process(name, [Slice(name, uuid, shape, level)])
        return {**os.environ, **cut.environment}

    def start(self, environment: Mapping[str, str], *words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self.program, *map(str, words)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, environment: Mapping[str, str], *words: object) -> str:
        """What the program printed. Raises AssertionError where it failed."""
        process = self.start(environment, *words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{words}: {process.returncode}\n{out}{err}"
        return out.strip()

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        keeper = getattr(self, "keeper", None)  # a test may have taken it away
        for unit in keeper.units() if keeper is not None else ():
            keeper.release(unit)
        if keeper is not None:
            keeper.watch_mps()


LEDGER = layout().structs["ledger"]


def forge(shop: Shop, unit: str, slot: int, **values: int) -> None:
    shape = layout().structs["ledger_slot"]
    ledger = shop.keeper._root / unit / "ledger"
    content = bytearray(ledger.read_bytes())
    base = LEDGER.at("slots", slot)
    used = values.pop("used", None)
    for name, value in values.items():
        shape.write(content, name, value, base=base)
    if used is not None:
        shape.write(content, "used", used, 0, base)
    LEDGER.write(content, "slots_high", max(LEDGER.read(content, "slots_high"), slot + 1))
    ledger.write_bytes(content)


PRELUDE = """
import ctypes, json, os, threading
from ctypes import byref, c_size_t, c_uint64, c_void_p
say = []
def begin(device=0):
    global cuda, context
    cuda, context = ctypes.CDLL("libcuda.so.1"), c_void_p()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(byref(context), device) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
def take(bytes_):
    pointer = c_uint64()
    return cuda.cuMemAlloc_v2(byref(pointer), c_size_t(bytes_)), pointer
def used():
    free, total = c_size_t(), c_size_t()
    assert cuda.cuMemGetInfo_v2(byref(free), byref(total)) == 0
    return total.value - free.value
"""


def say(environment: Mapping[str, str], script: str, *, begun: bool = True, wait_s: float = 60) -> list[object]:
    """What a program in Python found."""
    code = f"{PRELUDE}\n{'begin()' if begun else ''}\n{script}\nprint(json.dumps(say))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=wait_s)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
