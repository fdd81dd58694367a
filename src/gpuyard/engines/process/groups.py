"""A unit's cgroups: made, joined, emptied and removed. What is written into them was decided by `cgroup`.

cgroup v2 is one folder; v1 is one per controller, and a folder of the unified hierarchy beside them where there is one.
"""

# ruff: noqa: PTH103, PTH106, PTH110, PTH112, PTH120, PTH123 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

_KILL_PATIENCE_S = 2.0
_REMOVE_PATIENCE_S = 0.5

# A folder and what is written to its files, in order.
Plan = list[tuple[str, list[tuple[str, str]]]]


def make(plan: Plan) -> None:
    """Makes the folders and sets their limits. Raises OSError."""
    for path, writes in plan:
        try:
            os.makedirs(path, exist_ok=True)
        except FileNotFoundError:  # the last unit before this one just took the yard's own folder away
            os.makedirs(path, exist_ok=True)
        for name, value in writes:
            _write(f"{path}/{name}", value)


def join(paths: Iterable[str]) -> None:
    """Moves the calling process in. Raises OSError."""
    for path in paths:
        _write(f"{path}/cgroup.procs", "0")


def members(paths: Iterable[str]) -> set[int]:
    """The processes that are inside, those of nested groups included."""
    pids: set[int] = set()
    for path in paths:
        for folder, _, _ in os.walk(path):
            try:
                with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                    pids.update(int(line) for line in file)
            except OSError:  # the folder was removed meanwhile: nobody is in it
                continue
    return pids


def kill(paths: Iterable[str]) -> bool:
    """Kills all that is inside until nothing is left or patience ends. Whether it is empty.

    A pid cannot be recycled between reading it and the kill in a way that would matter for long: it is killed through
    a pidfd, and only while it is still listed.
    """
    paths = [path for path in paths if os.path.isdir(path)]
    deadline = time.monotonic() + _KILL_PATIENCE_S
    for path in paths:
        if os.path.exists(f"{path}/cgroup.kill"):
            _write(f"{path}/cgroup.kill", "1")
    while pids := members(paths):
        for pid in pids:
            _kill_member(pid, paths)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def remove(paths: Iterable[str]) -> None:
    """Removes the folders, nested ones first, and the yard's own folder with the last of them: but for one that passes
    controllers on (v2), which the next unit would not find in a new one."""
    for path in paths:
        deadline = time.monotonic() + _REMOVE_PATIENCE_S
        # A group stays busy for a moment after its last process was reaped.
        while os.path.isdir(path) and not _remove_tree(path) and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            if not _passes_on(os.path.dirname(path)):
                os.rmdir(os.path.dirname(path))
        except OSError:  # other units are in it
            continue


def out_of_memory_kills(paths: Iterable[str]) -> int:
    """How often the kernel killed a process of the group for memory: memory.events (v2), memory.oom_control (v1)."""
    kills = 0
    for path in paths:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(f"{path}/{name}", encoding="ascii") as file:
                    kills += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
            except OSError:  # a group without this controller
                continue
    return kills


def _kill_member(pid: int, paths: list[str]) -> None:
    try:
        pinned = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if pid in members(paths):
            signal.pidfd_send_signal(pinned, signal.SIGKILL)
    except OSError:  # it ended by itself
        return
    finally:
        os.close(pinned)


def _remove_tree(path: str) -> bool:
    try:
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True


def _passes_on(path: str) -> bool:
    try:
        with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
            return bool(file.read().strip())
    except OSError:  # v1, or gone
        return False


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)
