"""Escape is noticed: a process that NVML sees on a card, or that has its compute device open, and that no ledger knows
went around our library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.slicing.device_files import COMPUTE_DEVICES, unit_of
from gpuyard.slicing.kernel_limits import GroupLimit
from gpuyard.slicing.ledger import Holder, inner_pid_of, namespace_of, start_time_of

_TIMEOUT_S: Final = 30
# What a ledger does not count and a driver does: code on the card, stacks of kernels, and what contexts take beyond
# what is charged for them. A process with a slot is told of only beyond this.
UNCOUNTED_BYTES: Final = 1 << 30

# NVML is asked by another process: the yard's own must not hold a driver that is reloaded, or the emulator's variables.
_PROGRAM: Final = """
import json, os, sys, pynvml as n
n.nvmlInit()
groups = json.loads(sys.argv.pop(1))
cards = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
running = [(n.nvmlDeviceGetUUID(c), n.nvmlDeviceGetComputeRunningProcesses(c)) for c in cards]
numbers = {os.stat(path).st_rdev for path in sys.argv[1:] if os.path.exists(path)}
files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
opened = {os.stat(file).st_rdev for file in files if os.path.exists(file)}
def mode(card):
    try:
        return n.nvmlDeviceGetComputeMode(card)
    except n.NVMLError:
        return None
def limit(uuid, folder):
    seen = n.c_nvmlGetMemoryLimits_v1_t(folder.encode())
    try:
        n.nvmlDeviceGetMemoryLimits_v1(n.nvmlDeviceGetHandleByUUID(uuid), seen)
    except n.NVMLError:
        return None
    return seen.hardLimit, seen.currentUsed
print(json.dumps([
    not numbers & opened, [[u, p.pid, p.usedGpuMemory] for u, processes in running for p in processes],
    {n.nvmlDeviceGetUUID(c): mode(c) for c in cards}, [limit(*each) for each in groups],
]))
"""


@dataclass(frozen=True, slots=True)
class CardUse:
    """A process that NVML sees on a card, by its pid on the host; `used_bytes` None where NVML cannot tell."""

    card_uuid: str
    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Stranger:
    """A process of a unit that uses a card without a slot in any ledger. `unit` is what its environment says.
    `card_uuid` is None where only its open device tells of it."""

    card_uuid: str | None
    pid: int
    used_bytes: int | None
    unit: str
    start_time: int  # with the pid, which process it is

    def end(self) -> bool:
        """Kills this very process; False where it is gone, or not ours to end."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if start_time_of(self.pid) != self.start_time:  # the pid is another's by now
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True


def strangers(
    uses: Iterable[CardUse], holders: Iterable[Holder], units: Collection[str], openers: Iterable[int] = ()
) -> tuple[Stranger, ...]:
    """Processes of these units that use a card and are in no ledger, or hold far more than theirs says. Programs
    outside the yard are not judged. `openers` have a card's compute device open, whether NVML sees them or not."""
    known: dict[tuple[int | None, int | None, int], int] = {}
    for holder in holders:
        process = (holder.pid_namespace, holder.pid, holder.start_time)
        known[process] = max(known.get(process, 0), sum(holder.used_bytes))
    uses = list(uses)
    total = Counter[int]()
    for use in uses:
        total[use.pid] += use.used_bytes or 0
    found: list[Stranger] = []
    for use in uses:
        started, space, inner = start_time_of(use.pid), namespace_of(use.pid), inner_pid_of(use.pid)
        if started is None or _is_within(known.get((space, inner, started)), total[use.pid]):
            continue
        unit = unit_of(use.pid)
        if unit in units:
            found.append(Stranger(use.card_uuid, use.pid, use.used_bytes, unit, started))
    for pid in sorted(set(openers) - {use.pid for use in uses}):
        started, unit = start_time_of(pid), unit_of(pid)
        if started is not None and unit in units and (namespace_of(pid), inner_pid_of(pid), started) not in known:
            found.append(Stranger(None, pid, None, unit, started))
    return tuple(found)


def _is_within(noted_bytes: int | None, held_bytes: int) -> bool:
    return noted_bytes is not None and held_bytes <= noted_bytes + UNCOUNTED_BYTES


@dataclass(frozen=True, slots=True)
class CardLook:
    """What NVML sees of every card. `device_tells`: NVML itself keeps the compute device shut, so that whoever has it
    open computes; where a driver's NVML opens it, that says nothing. `limits`: of the groups that were asked for, by
    card and folder."""

    uses: tuple[CardUse, ...]
    device_tells: bool
    modes: Mapping[str, int | None]  # compute modes by UUID
    limits: Mapping[tuple[str, str], GroupLimit | None]


def card_look(environment: Mapping[str, str], groups: Sequence[tuple[str, str]] = ()) -> CardLook:
    """What is on the cards now, and the memory limits of these cgroups (card, folder). Raises OSError where NVML does
    not answer."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", _PROGRAM, json.dumps(list(groups)), *COMPUTE_DEVICES],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2])
    tells, rows, modes, limits = json.loads(done.stdout)
    told = {group: None if one is None else GroupLimit(*one) for group, one in zip(groups, limits, strict=True)}
    return CardLook(tuple(CardUse(*row) for row in rows), tells, modes, told)
