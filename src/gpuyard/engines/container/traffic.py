"""What a container has sent, received and computed so far, by the kernel's own counters; what they do not tell is
absent.

A container with a network of its own has interfaces of its own, whose counters begin at nothing with it: bytes of whole
frames, whoever they go to. One that shares the host's network has none that could be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_SENT = 8  # the place of `bytes transmitted` after the interface's name: proc_pid_net(5)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes through all interfaces but the one to itself."""

    received: int
    sent: int


def own_pid(container: Mapping[str, Any]) -> int | None:
    """Its first process, where it has a network of its own; None where it shares one."""
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    pid = int(container["State"].get("Pid") or 0)
    return None if pid <= 0 or mode == "host" or mode.startswith(("ns:", "container:")) else pid


def traffic_of(pid: int, proc: Path = _PROC) -> Traffic | None:
    """None where the process is gone."""
    try:
        lines = (proc / str(pid) / "net" / "dev").read_text().splitlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, rest = line.partition(":")
        counters = rest.split()
        if name.strip() != "lo" and len(counters) > _SENT:
            received += int(counters[0])
            sent += int(counters[_SENT])
    return Traffic(received, sent)


def cpu_us_of(pid: int, proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """CPU time of its own control group; None where it has none, or that cannot be read."""
    try:
        rows = [line.split(":", 2) for line in (proc / str(pid) / "cgroup").read_text().splitlines()]
        rows = [row for row in rows if len(row) == 3 and row[2] != "/"]  # that one is everybody's
        for _, controllers, path in rows:
            if "cpuacct" in controllers.split(","):
                return int((groups / controllers / path.lstrip("/") / "cpuacct.usage").read_text()) // 1000
        unified = next((path for _, controllers, path in rows if not controllers), None)
        if unified is None:
            return None
        stat = (groups / unified.lstrip("/") / "cpu.stat").read_text().split()
        return int(stat[stat.index("usage_usec") + 1])
    except (OSError, ValueError):
        return None
