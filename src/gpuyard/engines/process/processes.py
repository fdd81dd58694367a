"""Finding and killing processes without ever hitting a stranger that was given a recycled pid."""

# ruff: noqa: PTH123, PTH208 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

MARK = "GPUYARD_UNIT_MARK"  # a random value in the environment of everything that a unit starts
_KILL_PATIENCE_S = 2.0


class Status:
    """What /proc/<pid>/stat tells: parent, session, state letter and start time in clock ticks since boot."""

    __slots__ = ("parent", "session", "state", "ticks")

    def __init__(self, parent: int, session: int, state: str, ticks: int) -> None:
        self.parent = parent
        self.session = session
        self.state = state
        self.ticks = ticks


def status(pid: int) -> Status | None:
    """None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Status(int(fields[1]), int(fields[3]), fields[0].decode(), int(fields[19]))


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; 0 where there is no such process."""
    found = status(pid)
    return found.ticks if found else 0


def kill_exactly(pid: int, ticks: int) -> bool:
    """SIGKILL for this process and no other: the pid is pinned before its start time is compared."""
    try:
        pinned = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(pinned, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(pinned)


def everyone() -> dict[int, Status]:
    """All processes that can be seen."""
    seen: dict[int, Status] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := status(int(entry))) is not None:
            seen[int(entry)] = found
    return seen


def descendants(of: int) -> dict[int, int]:
    """The living processes below this one: pid -> start ticks."""
    children: dict[int, list[int]] = {}
    seen = everyone()
    for pid, found in seen.items():
        if found.state not in "ZX":
            children.setdefault(found.parent, []).append(pid)
    below: dict[int, int] = {}
    pending = list(children.get(of, ()))
    while pending:
        pid = pending.pop()
        below[pid] = seen[pid].ticks
        pending.extend(children.get(pid, ()))
    return below


def left_of_unit(child_pid: int, child_ticks: int, mark: str) -> dict[int, int]:
    """What still lives of a unit whose supervisor is gone: pid -> start ticks.

    A process counts when it is the unit's first one, in that one's session, or carries the unit's mark. The session's
    number is trusted only while it cannot have been given away: nobody younger leads it.
    """
    seen = everyone()
    leader = seen.get(child_pid)
    own_session = leader is None or leader.ticks == child_ticks
    needle = f"{MARK}={mark}".encode()
    left: dict[int, int] = {}
    for pid, found in seen.items():
        if found.state in "ZX" or found.ticks < child_ticks:
            continue
        in_session = own_session and found.session == child_pid
        if (pid == child_pid and own_session) or in_session or needle in _environment(pid):
            left[pid] = found.ticks
    return left


def kill_left_of_unit(child_pid: int, child_ticks: int, mark: str) -> bool:
    """Kills until nothing is left or patience ends (a process may hang in the kernel). Whether all is gone."""
    deadline = time.monotonic() + _KILL_PATIENCE_S
    while left := left_of_unit(child_pid, child_ticks, mark):
        for pid, ticks in left.items():
            kill_exactly(pid, ticks)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _environment(pid: int) -> tuple[bytes, ...]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return tuple(file.read().split(b"\0"))
    except OSError:
        return ()


def cpu_us(pids: Iterable[int]) -> int:
    """CPU time of these processes so far, in user and kernel mode; those that are gone count nothing."""
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                after_name = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(after_name[11]) + int(after_name[12])  # utime and stime: proc(5), fields 14 and 15
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
