"""The wheels that `make wheel` built: they carry the native parts, run on old systems and need no compiler."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Programs: they have no name that the linker knows, and must be such that may run.
PROGRAMS = ("shim/gpuyard-verify", "emulator/nvidia-cuda-mps-control")
KERNEL = "libgpuyard_placing.so"  # of the scheduler: loaded by its path
LIBRARIES = [f"{folder}/{name}" for folder in ("shim", "emulator") for name in ("libcuda.so.1", "libnvidia-ml.so.1")]


def wheel_for(machine: str) -> Path:
    found = sorted(ROOT.glob(f"dist/gpuyard-*-py3-none-manylinux2014_{machine}.whl"))
    assert found, f"no wheel for {machine} in dist: run `make wheel`"
    return found[-1]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_wheel_carries_the_libraries_for_its_machine_and_needs_no_newer_glibc(machine: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel_for(machine)) as wheel:
        names = set(wheel.namelist())
        assert {"gpuyard/slicing/native/layout.toml", "gpuyard/slicing/native/names/cuda.csv"} <= names
        for program in PROGRAMS:
            assert wheel.getinfo(f"gpuyard/slicing/native/lib/{program}").external_attr >> 16 & 0o111
        for library in (*LIBRARIES, *PROGRAMS, KERNEL):
            folder = "scheduling" if library == KERNEL else "slicing"
            path = Path(wheel.extract(f"gpuyard/{folder}/native/lib/{library}", tmp_path))
            told = subprocess.run(
                ["readelf", "-h", "-V", "-d", str(path)], check=True, capture_output=True, text=True
            ).stdout
            assert {"x86_64": "X86-64", "aarch64": "AArch64"}[machine] in told
            assert f"[{path.name}]" in told or library in {*PROGRAMS, KERNEL}
            needed = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_(\d+\.\d+)", told)}
            assert max(needed, default=(0,)) <= (2, 17)


def test_an_installed_wheel_enforces_slices_without_a_compiler(tmp_path: Path) -> None:
    import platform

    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", str(wheel_for(platform.machine()))]
    subprocess.run(install, check=True)
    program = """
import os; os.environ["PATH"] = "/nowhere"
from gpuyard.slicing.building import CARRIED, built
assert built() == CARRIED, built()
print(built())
"""
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout
