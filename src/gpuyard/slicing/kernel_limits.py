"""Limits of device memory that the driver itself holds, by cgroup: no program in the group gets more of a card,
whatever libraries it brings.

Drivers from 615 on (CUDA 13.4) have them. They are set through NVML alone: it finds the group's entry for the card, and
works by the kernel's `dmem` controller (Linux 6.14) or, without one, by accounts of the driver's own. Only root sets
them, anybody reads them. https://docs.nvidia.com/deploy/mps/latest/mpsv3-memory-partitioning.html
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpuyard.model.said import Said, SaidError, Why
from gpuyard.slicing.drivers import Driver

UNLIMITED: Final = (1 << 64) - 1  # NVML_DEVICE_MEMORY_LIMIT_MAX
_TIMEOUT_S: Final = 30
_REMOVE_PATIENCE_S: Final = 0.5
REAL_MOUNT: Final = Path("/sys/fs/cgroup")  # the driver looks for cgroup v2 there, and nowhere else
_CONTROLLER: Final = "dmem"
_SAID: Final = {
    "NVMLError_FunctionNotFound": Said("kernel_limits.old_driver"),
    "NVMLError_NoPermission": Said("kernel_limits.not_root"),
    "NVMLError_NotSupported": Said("kernel_limits.not_supported"),
    "NVMLError_NotFound": Said("kernel_limits.not_passed_on"),
}

# Sets limits, then tells what is set. The soft limit stays 0: another would reserve memory in every group above, and
# nobody gives that back when a group is just removed; and MPS ends programs that are beyond theirs.
_PROGRAM: Final = """
import json, sys, pynvml as n
n.nvmlInit()
told = []
for uuid, folder, wanted in json.loads(sys.argv[1]):
    card = n.nvmlDeviceGetHandleByUUID(uuid)
    if wanted is not None:
        n.nvmlDeviceSetMemoryLimits_v1(card, n.c_nvmlSetMemoryLimits_v1_t(folder.encode(), 0, wanted))
    seen = n.c_nvmlGetMemoryLimits_v1_t(folder.encode())
    try:
        n.nvmlDeviceGetMemoryLimits_v1(card, seen)
        told.append([seen.hardLimit, seen.currentUsed])
    except n.NVMLError:
        told.append(None)
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """What a group may have of a card, and has. Bytes; `hard_bytes` is UNLIMITED where there is no limit."""

    hard_bytes: int
    used_bytes: int


class KernelLimits:
    """The cgroups (v2) of this machine's units, and how much of each card their processes may have together.

    `units`: the folder with a group for each unit. `mount`: where the kernel shows all groups. `seen`: where NVML looks
    for them; the same folder, but for emulated cards, which no kernel knows.
    """

    def __init__(self, driver: Driver, units: Path, mount: Path, seen: Path) -> None:
        self._driver = driver
        self._units = units
        self._mount = mount
        self._seen = seen

    @property
    def seen(self) -> Path:
        """Where NVML looks for groups."""
        return self._seen

    def group_of_unit(self, unit: str) -> str:
        """The unit's group, as the kernel writes it in /proc/PID/cgroup."""
        return f"/{(self._units / unit).relative_to(self._mount)}"

    def limit(self, group: str, cards: Mapping[str, int]) -> None:
        """Makes the group where it is not there, and sets what it may have of each card (UUID: bytes).

        Raises OSError where that does not hold, as NVML tells it afterwards.
        """
        for root in {self._mount, self._seen}:
            self._make(root / group.lstrip("/"))
        _pass_on_here(self._units)  # which is ours alone
        wanted = [(uuid, self.folder(group), limit) for uuid, limit in cards.items()]
        told = _nvml(self._driver, wanted)
        for (uuid, _, limit), one in zip(wanted, told, strict=True):
            if one is None or one.hard_bytes != limit:
                shown = "none" if one is None or one.hard_bytes == UNLIMITED else f"{one.hard_bytes} bytes"
                raise OSError(f"{uuid}: the driver was told a limit of {limit} bytes and says that it is {shown}")

    def pass_on_to(self, group: str) -> None:
        """Has the groups above this one pass the kernel's controller on to it, where there is one."""
        pass_on((self._mount / group.lstrip("/")).parent, self._mount)

    def folder(self, group: str) -> str:
        """The group as NVML is told of it."""
        return str(self._seen / group.lstrip("/"))

    def join(self, group: str, command: Sequence[str]) -> list[str]:
        """The command, so that it runs in the group."""
        procs = self._mount / group.lstrip("/") / "cgroup.procs"
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(procs), *command]

    def bring_back(self, pid: int, group: str) -> None:
        """Moves a process of a unit into its group. Raises OSError."""
        (self._mount / group.lstrip("/") / "cgroup.procs").write_text(str(pid))

    def remove(self, group: str) -> None:
        """Removes the group, and its limits with it. Whoever is still in it keeps it: the kernel removes none such."""
        place = self._mount / group.lstrip("/")
        deadline = time.monotonic() + _REMOVE_PATIENCE_S
        while place.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                place.rmdir()
                break
            time.sleep(0.01)  # it stays busy for a moment after its last process
        self.forget(group)

    def forget(self, group: str) -> None:
        """After the kernel's group has gone: what NVML was shown of it, where that is another folder."""
        if self._seen == self._mount or (self._mount / group.lstrip("/")).exists():
            return
        place = self._seen / group.lstrip("/")
        for name in ("dmem.max", "dmem.min"):
            with suppress(OSError):
                (place / name).unlink()
        with suppress(OSError):
            place.rmdir()

    def _make(self, place: Path) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # the last unit before this one just took the folder above away
            place.mkdir(parents=True, exist_ok=True)


def missing_for(driver: Driver, units: Path | None, mount: Path | None) -> Why | None:
    """What this machine lacks for such limits, as far as it can be told without trying; None: nothing.

    `units` and `mount`: where units have their cgroups (v2), and where those are mounted."""
    if driver.groups is None:
        return Said("kernel_limits.old_driver")
    if os.geteuid() != 0:
        return Said("kernel_limits.not_root")
    if driver.groups == REAL_MOUNT and mount != REAL_MOUNT:
        return Said("kernel_limits.no_cgroup2")
    if units is None or mount is None:
        return Said("kernel_limits.no_groups")
    return None


def pass_on(units: Path, mount: Path) -> None:
    """Has every group from the mount down to the units' own pass the kernel's controller on, where it has one. That
    changes nothing for groups beside them but that their device memory is counted too. What is refused is found out by
    the trial."""
    folder = mount
    for part in ("", *units.relative_to(mount).parts):
        folder = folder / part
        _pass_on_here(folder)


def _pass_on_here(folder: Path) -> None:
    with suppress(OSError):
        if _CONTROLLER in (folder / "cgroup.controllers").read_text().split():
            (folder / "cgroup.subtree_control").write_text(f"+{_CONTROLLER}")


def cgroup_of(pid: int | str) -> str | None:
    """The group that a process is in, as the kernel writes it; None for one that is gone, or without cgroup v2."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:  # noqa: PTH123 - asked for every process
            found = [line[3:].rstrip("\n") for line in file if line.startswith("0::")]
    except OSError:
        return None
    return found[0] if found else None


def is_within(group: str | None, outer: str) -> bool:
    """Whether a group is that one, or below it."""
    return group is not None and (group == outer or group.startswith(f"{outer}/"))


def _nvml(driver: Driver, wanted: Collection[tuple[str, str, int | None]]) -> list[GroupLimit | None]:
    if not wanted:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _PROGRAM, json.dumps(list(wanted))],
            env={**os.environ, **driver.bare()}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"NVML does not answer within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2] or "NVML"
        said = _SAID.get(last.partition(":")[0].rpartition(".")[2])
        raise SaidError(last, said) if said is not None else OSError(last)
    told: list[Any] = json.loads(done.stdout)
    return [None if one is None else GroupLimit(*one) for one in told]
