"""The driver of this machine as slices meet it: its libraries, its MPS program, and what programs need to use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# What a context takes before a program allocates anything, where it cannot be measured: an H100 with driver 580 takes
# 524 MiB.
CONTEXT_BYTES: Final = 544 << 20
# How long the driver lets one of several busy programs run before the next has its turn (its default time slice).
TURN_NS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's libraries on this machine, and what a program needs besides to use them. `files`: files that it
    opens by the variable of that name (the emulator has one). `mps_control`: nvidia-cuda-mps-control, where it is.
    `groups`: the folder in which the driver finds the cgroups that it limits; None where it is known to limit none."""

    cuda: Path
    nvml: Path | None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    context_bytes: int = CONTEXT_BYTES
    turn_ns: int = TURN_NS
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    mps_control: Path | None = None
    groups: Path | None = None

    def variables(self) -> dict[str, str]:
        """For programs of this machine that use the driver."""
        return {**self.environment, **{name: str(file) for name, file in self.files.items()}}

    def bare(self) -> dict[str, str]:
        """The same, with the driver itself found first by the library path: for programs on no slice."""
        paths = [str(self.cuda.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {**self.variables(), "LD_LIBRARY_PATH": ":".join(path for path in paths if path)}
