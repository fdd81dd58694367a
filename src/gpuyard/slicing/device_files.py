"""Programs that have a card's compute device open: the driver's libraries are not the only ones that can."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

# CUDA computes through it. That NVML does not open it, and looking at a card (nvidia-smi) is not taken for computing on
# it, is looked at each time: see `escape.card_look`.
COMPUTE_DEVICES: Final = ("/dev/nvidia-uvm",)


def unit_of(pid: int) -> str:
    """The unit that started a process, as the environment it was started with says; empty where that says nothing."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    values: dict[str, str] = {}
    for part in raw.decode(errors="replace").split("\0"):
        name, _, value = part.partition("=")
        values[name] = value
    lease, attempt = values.get("GPUYARD_LEASE", ""), values.get("GPUYARD_ATTEMPT", "")
    return f"{lease}-{attempt}" if lease and attempt else ""


def openers(units: Collection[str], devices: Collection[str] = COMPUTE_DEVICES) -> frozenset[int]:
    """Processes of these units that have one of the devices open now, under whatever name. Those whose open files we
    may not see are not among them."""
    numbers = {number for number in map(_number, devices) if number is not None}
    if not numbers:
        return frozenset()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return frozenset(pid for pid in pids if unit_of(pid) in units and not numbers.isdisjoint(_opened_by(pid)))


def _opened_by(pid: int) -> set[int | None]:
    try:
        return {_number(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208 - hot
    except OSError:
        return set()


def _number(path: str) -> int | None:
    """The device that a name leads to; None where it is no character device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - hot
    except OSError:
        return None
    return status.st_rdev if stat.S_ISCHR(status.st_mode) else None
