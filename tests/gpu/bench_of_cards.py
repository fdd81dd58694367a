"""What the steps of the check share: the first card, slices of it, programs on them, and what NVML says from outside."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.context_cost import measured_context_bytes
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.shared_files import ComputeMode

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
_WHERE = "import ctypes; ctypes.CDLL('libcuda.so.1'); print(open('/proc/self/maps').read())"


class Bench:
    """One machine's first card. Slices are cut below `folder`."""

    def __init__(self, folder: Path, split_seconds: float) -> None:
        import pynvml

        self.folder, self.split_seconds = folder, split_seconds
        pynvml.nvmlInit()
        self.nvml = pynvml
        self.card = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.uuid: str = pynvml.nvmlDeviceGetUUID(self.card)
        self.memory_bytes: int = pynvml.nvmlDeviceGetMemoryInfo(self.card).total
        self._cuts = 0

    @functools.cached_property
    def driver(self) -> Driver:
        """The driver, where this machine's linker finds it."""
        done = subprocess.run(
            [sys.executable, "-I", "-c", _WHERE], capture_output=True, text=True, check=True, timeout=60
        )
        cuda = Path(next(line.split(maxsplit=5)[5] for line in done.stdout.splitlines() if "/libcuda.so" in line))
        nvml = cuda.with_name("libnvidia-ml.so.1")
        control = shutil.which("nvidia-cuda-mps-control")
        bare = Driver(cuda, nvml if nvml.exists() else None, mps_control=Path(control) if control else None)
        return replace(bare, context_bytes=measured_context_bytes(bare))

    def slice(
        self, memory_bytes: int, compute_ppm: int = 1_000_000, mode: ComputeMode = ComputeMode.CAP
    ) -> dict[str, str]:
        """A new slice of the card; the environment of a program on it."""
        self._cuts += 1
        name = f"tenant{self._cuts}"
        keeper = SliceKeeper(self.folder / f"slices-{mode.name.lower()}", self.driver, mode)
        cut = keeper.for_process(
            name, [Slice(name, self.uuid, SliceShape(memory_bytes, compute_ppm), Guarantee.COOPERATIVE)]
        )
        return {**os.environ, **cut.environment, "CUDA_VISIBLE_DEVICES": self.uuid}

    def bare(self) -> dict[str, str]:
        """The environment of a program without a slice."""
        return {**os.environ, "CUDA_VISIBLE_DEVICES": self.uuid}

    @functools.cached_property
    def calls(self) -> Path:
        """The program that measures calls."""
        path = self.folder / "calls"
        subprocess.run(["cc", "-O2", "-w", "-o", path, HERE / "calls.c", "-ldl"], check=True)
        return path

    def python(self, environment: Mapping[str, str], *words: object, timeout: float = 120) -> list[dict[str, Any]]:
        """The JSON lines that a Python program prints. Raises RuntimeError with its last words where it fails."""
        return lines_of(self.start(environment, *words), timeout)

    def start(self, environment: Mapping[str, str], *words: object) -> subprocess.Popen[str]:
        """Starts a Python program."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, *map(str, words)], env=dict(environment), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def products(self, environments: Sequence[Mapping[str, str]], seconds: float, how: str = "plain") -> list[float]:
        """Matrix products a second of programs that run at the same time. Raises RuntimeError where one was late."""
        return self._rates([self.start(each, HERE / "products.py", 4096, how) for each in environments], seconds)

    def spins(self, environments: Sequence[Mapping[str, str]], seconds: float, how: str = "plain") -> list[float]:
        """Kernels of a fixed amount of work a second, likewise."""
        return self._rates(
            [self.start(each, HERE / "spins.py", how, self.spin_count) for each in environments], seconds
        )

    @functools.cached_property
    def spin_count(self) -> int:
        """How large a kernel of spins.py is, so that all of them are alike."""
        process = self.start(self.bare(), HERE / "spins.py", "plain")
        assert process.stdout is not None
        count = json.loads(process.stdout.readline() or "{}").get("count", 0)
        process.communicate("0 0\n", timeout=30)
        return int(count)

    def _rates(self, running: list[subprocess.Popen[str]], seconds: float) -> list[float]:
        try:
            told = _together(running, seconds)
        finally:
            for process in running:
                process.kill()
        if any(row["late"] for row in told):
            raise RuntimeError(f"a program was not ready in time: {told}")
        return [row["products"] / row["seconds"] for row in told]

    def used_bytes(self) -> int:
        """What the card's memory holds, all programs together, as NVML tells it from outside of any slice."""
        return int(self.nvml.nvmlDeviceGetMemoryInfo(self.card).used)


def _together(running: Sequence[subprocess.Popen[str]], seconds: float) -> list[dict[str, Any]]:
    """Waits until all are ready, lets them begin at one moment, and gives what each of them said at the end."""
    for process in running:
        assert process.stdout is not None
        if "ready" not in process.stdout.readline():
            raise RuntimeError(process.communicate(timeout=30)[1].strip()[-400:])
    begin = time.monotonic() + 0.5
    for process in running:
        assert process.stdin is not None
        process.stdin.write(f"{begin} {begin + seconds}\n")
        process.stdin.flush()
    return [lines_of(process, 60 + seconds)[-1] for process in running]


def lines_of(process: subprocess.Popen[str], timeout: float) -> list[dict[str, Any]]:
    """A program's JSON lines once it has ended. Raises RuntimeError with its last words where it fails."""
    try:
        out, err = process.communicate("\n", timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {err.strip()[-400:]}")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def has_torch() -> bool:
    """Whether PyTorch is installed here."""
    return importlib.util.find_spec("torch") is not None


def cuda() -> ctypes.CDLL:
    """The driver in this very process, bare."""
    library = ctypes.CDLL("libcuda.so.1")
    if result := library.cuInit(0):
        raise RuntimeError(f"cuInit: {result}")
    return library
