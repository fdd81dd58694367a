"""This machine: the CPUs and memory that the yard may give to units, and its NUMA layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gpuyard.model.fleet import Card, Node

_CGROUP = Path("/sys/fs/cgroup")
_NUMA = Path("/sys/devices/system/node")


def local_node(name: str = "local", cards: Sequence[Card] = ()) -> Node:
    """This machine as a node with these cards."""
    return Node(name=name, cpu_milli=cpu_milli(), memory_bytes=memory_bytes(), cards=tuple(cards))


def cpu_milli(cgroup: Path = _CGROUP) -> int:
    """Milli-cores that this process may use: its CPU affinity, or its cgroup's quota where that is less."""
    allowed = len(os.sched_getaffinity(0)) * 1000
    quota, _, period = _first_line(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        allowed = min(allowed, int(quota) * 1000 // int(period))
    return max(allowed, 1)


def memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory of this machine, or its cgroup's limit where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _first_line(cgroup / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def numa_nodes(root: Path = _NUMA) -> tuple[int, ...]:
    """The NUMA nodes of this machine; empty where the kernel does not tell."""
    try:
        names = [entry.name for entry in root.iterdir()]
    except OSError:
        return ()
    return tuple(sorted(int(name[4:]) for name in names if name.startswith("node") and name[4:].isdigit()))


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""
