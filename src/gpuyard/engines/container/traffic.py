"""What a container has computed so far, and whose interfaces are its own; what the kernel does not tell is absent.

A container with a network of its own has interfaces of its own, whose counters begin at nothing with it: bytes of whole
frames, whoever they go to. One that shares the host's network has none that could be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuyard.engines.interfaces import PROC

_GROUPS = Path("/sys/fs/cgroup")


def own_pid(container: Mapping[str, Any]) -> int | None:
    """Its first process, where it has a network of its own; None where it shares one."""
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    pid = int(container["State"].get("Pid") or 0)
    return None if pid <= 0 or mode == "host" or mode.startswith(("ns:", "container:")) else pid


def cpu_us_of(pid: int, proc: Path = PROC, groups: Path = _GROUPS) -> int | None:
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
