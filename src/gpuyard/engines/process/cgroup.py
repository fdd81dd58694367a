"""Which cgroups this server may make, found by making one, and the limits that a unit gets in them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpuyard.engines.process import groups
from gpuyard.engines.process.groups import Plan

PERIOD_US: Final = 100_000
MIN_QUOTA_US: Final = 1000  # the kernel's own least
MAX_PIDS: Final = 4096
_CONTROLLERS: Final = ("cpu", "memory", "pids")
_DEVICE_MEMORY: Final = "dmem"  # passed on to units' groups; its limits are set by the card's driver


@dataclass(frozen=True, slots=True)
class Limits:
    """The cgroup folders in which units get theirs, by controller; "" is the unified one of a v1 system.

    For v2 all controllers share one folder.
    """

    version: int  # 2, 1, or 0 where none can be made
    folders: dict[str, str] = field(default_factory=dict[str, str])
    mount: str = ""  # of the unified hierarchy, where there is one

    @property
    def unified(self) -> str | None:
        """The folder of the unified hierarchy in which units get theirs."""
        return self.folders.get("") if self.version == 1 else next(iter(self.folders.values()), None)

    @property
    def controllers(self) -> frozenset[str]:
        """What can be limited."""
        return frozenset(self.folders) & frozenset(_CONTROLLERS)

    def plan(self, unit: str, cpu_milli: int, memory_bytes: int) -> Plan:
        """The folders of one unit and what is written into them."""
        writes = _writes_v2 if self.version == 2 else _writes_v1
        plan: dict[str, list[tuple[str, str]]] = {}
        for controller, folder in self.folders.items():
            plan.setdefault(f"{folder}/{unit}", []).extend(writes(controller, folder, cpu_milli, memory_bytes))
        return list(plan.items())


def _writes_v2(controller: str, folder: str, cpu_milli: int, memory_bytes: int) -> list[tuple[str, str]]:
    match controller:
        case "cpu":
            return [("cpu.max", f"{_quota_us(cpu_milli)} {PERIOD_US}")]
        case "memory":
            swap = [("memory.swap.max", "0")] if _has(folder, "memory.swap.max") else []
            return [("memory.max", str(memory_bytes)), *swap, ("memory.oom.group", "1")]
        case "pids":
            return [("pids.max", str(MAX_PIDS))]
        case _:
            return []


def _writes_v1(controller: str, folder: str, cpu_milli: int, memory_bytes: int) -> list[tuple[str, str]]:
    match controller:
        case "cpu":
            return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(_quota_us(cpu_milli)))]
        case "memory":
            # memory plus swap may not be less than memory, so it is set second
            with_swap = "memory.memsw.limit_in_bytes"
            swap = [(with_swap, str(memory_bytes))] if _has(folder, with_swap) else []
            return [("memory.limit_in_bytes", str(memory_bytes)), *swap]
        case "pids":
            return [("pids.max", str(MAX_PIDS))]
        case _:
            return []


def _quota_us(cpu_milli: int) -> int:
    return max(MIN_QUOTA_US, cpu_milli * PERIOD_US // 1000)


def _has(folder: str, name: str) -> bool:
    # The yard's own folder has the same files as the units' below it, but may not be there yet: then its parent has.
    return any((Path(place) / name).exists() for place in (folder, str(Path(folder).parent)))


def find(root: Path, mounts: Path = Path("/proc/self/mounts"), own: Path = Path("/proc/self/cgroup")) -> Limits:
    """The cgroups for the units of the yard at `root`, below the group that this process is in: a limit that was set on
    the server holds for its units too. Whatever cannot be made is left out."""
    yard = "gpuyard-" + hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    hierarchies = _mounted(mounts)
    mine = _own_groups(own)
    unified = _join_path(hierarchies.get("unified"), mine.get(""))
    if unified is not None and (_controllers_of(unified) & set(_CONTROLLERS)):
        return _find_v2(unified, yard, hierarchies["unified"])
    folders: dict[str, str] = {}
    for controller in _CONTROLLERS:
        base = _join_path(hierarchies.get(controller), mine.get(controller))
        if base is not None and _can_make(f"{base}/{yard}", controller):
            folders[controller] = f"{base}/{yard}"
    if folders and unified is not None and _can_make(f"{unified}/{yard}", ""):
        folders[""] = f"{unified}/{yard}"
    return Limits(1, folders, hierarchies.get("unified", "")) if folders else Limits(0)


def unified_mount(mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Where cgroup v2 is mounted; None where it is not."""
    return _mounted(mounts).get("unified")


def _find_v2(unified: str, yard: str, mount: str) -> Limits:
    base = Path(unified)
    offered = _controllers_of(unified) & {*_CONTROLLERS, _DEVICE_MEMORY}
    if not _delegate(base, offered):
        return Limits(0)
    folder = base / yard
    try:
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(offered)))
    except OSError:
        return Limits(0)
    granted = set((folder / "cgroup.subtree_control").read_text().split())
    return Limits(2, {name: str(folder) for name in _CONTROLLERS if name in granted}, mount)


def _delegate(base: Path, offered: set[str]) -> bool:
    """Lets groups below `base` have the controllers.

    A group with processes in it may not pass controllers on, save the root: where this server is what is in it, it
    moves into a group of its own beside the units' one.
    """
    control = base / "cgroup.subtree_control"
    request = " ".join(f"+{name}" for name in sorted(offered))
    try:
        if offered <= set(control.read_text().split()):
            return True
        control.write_text(request)
        return True
    except OSError:
        pass
    aside = base / "gpuyard-server"
    try:
        aside.mkdir(exist_ok=True)
        (aside / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return False
    try:
        control.write_text(request)
        return True
    except OSError:
        (base / "cgroup.procs").write_text(str(os.getpid()))
        aside.rmdir()
        return False


def _mounted(mounts: Path) -> dict[str, str]:
    """Where each v1 controller and the unified hierarchy ("unified") are mounted."""
    found: dict[str, str] = {}
    for line in mounts.read_text().splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup2":
            found["unified"] = place
        elif kind == "cgroup":
            found.update((name, place) for name in options.split(",") if name in _CONTROLLERS)
    return found


def _own_groups(own: Path) -> dict[str, str]:
    """This process's group in each hierarchy; "" is the unified one."""
    found: dict[str, str] = {}
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found.update((name, path) for name in controllers.split(","))
    return found


def _join_path(mount: str | None, path: str | None) -> str | None:
    if mount is None or path is None or path.startswith("/.."):
        return None
    joined = mount + path.rstrip("/")
    return joined if Path(joined).is_dir() else None


def _controllers_of(folder: str) -> set[str]:
    try:
        return set((Path(folder) / "cgroup.controllers").read_text().split())
    except OSError:
        return set()


def _can_make(folder: str, controller: str) -> bool:
    """Tries it out with a group of the smallest unit."""
    probe = f"{folder}/probe-{os.getpid()}"
    writes = _writes_v1(controller, folder, 1000, 1 << 30)
    try:
        groups.make([(probe, writes)])
    except OSError:
        return False
    finally:
        groups.remove([probe])
    return True
