"""Builds the native parts into a wheel, with a C compiler that comes from the package index: nothing else is needed.

`GPUYARD_WHEEL_MACHINE` names another machine to build for (x86_64 or aarch64). An editable install carries nothing:
there they are built on first use.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeParts(BuildHookInterface[Any]):
    """Puts `gpuyard/slicing/native/lib` and the placement kernel into the wheel and says which machines that is for."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by Hatchling before it gathers the files."""
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root, "src")))
        from gpuyard.slicing import building

        machine = os.environ.get("GPUYARD_WHEEL_MACHINE") or platform.machine()
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.{building.GLIBC}")
        out = Path(self.directory, f"native-{machine}")
        shutil.rmtree(out, ignore_errors=True)
        building.build(out, compiler, machine)
        for target in building.TARGETS:
            build_data["force_include"][str(out / target.path)] = f"gpuyard/slicing/native/lib/{target.path}"
        for program in (f"{building.TARGETS[0].folder}/{building.PROBE}", f"emulator/{building.MPS_CONTROL}"):
            build_data["force_include"][str(out / program)] = f"gpuyard/slicing/native/lib/{program}"
        from gpuyard.slicing import kernel

        kernel.build(out / kernel.NAME, compiler)
        build_data["force_include"][str(out / kernel.NAME)] = f"gpuyard/scheduling/native/lib/{kernel.NAME}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux2014_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called once the wheel is written."""
        del build_data, artifact_path
        if version != "editable":
            for folder in Path(self.directory).glob("native-*"):
                shutil.rmtree(folder, ignore_errors=True)
