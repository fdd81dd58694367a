"""From a unit to a running supervisor: its environment, and the hand-over of everything through one pipe."""

from __future__ import annotations

import getpass
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpuyard.engines.process.cgroup import Limits
from gpuyard.engines.process.disks import TEMPORARY
from gpuyard.engines.process.folders import COMPLAINT
from gpuyard.engines.process.processes import MARK
from gpuyard.engines.process.spawning import Task
from gpuyard.engines.runtime import Unit

LOG_BYTES: Final = 8 << 20  # of the present piece; the rotated one has as much again
_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def task_for(unit: Unit, disk: Path, folder: Path, ports: Mapping[int, int], limits: Limits, log_bytes: int) -> Task:
    """All that the unit's supervisor is told."""
    mark = secrets.token_hex(8)
    return Task(
        command=unit.command,
        environment=_environment(unit, disk, ports, mark),
        folder=str(folder),
        groups=limits.plan(unit.name, unit.cpu_milli, unit.memory_bytes),
        memory_bytes=None if "memory" in limits.controllers else unit.memory_bytes,
        log_bytes=log_bytes,
        mark=mark,
    )


def _environment(unit: Unit, disk: Path, ports: Mapping[int, int], mark: str) -> dict[str, str]:
    """Nothing of the server's own environment: it may hold what tenants must not see."""
    environment = {
        "PATH": _PATH,
        "HOME": str(disk),
        "LANG": "C.UTF-8",
        "TMPDIR": str(disk / TEMPORARY),
        "USER": _user(),
        "PYTHONUNBUFFERED": "1",
        **unit.environment,
        **unit.secrets,
    }
    if ports:
        environment["PORT"] = str(ports[unit.ports[0]])
        environment.update((f"PORT_{declared}", str(port)) for declared, port in ports.items())
    environment[MARK] = mark
    return environment


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())


def spawn(task: Task, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a supervisor for the unit of that folder and hands it the task. Raises OSError."""
    with (folder / COMPLAINT).open("wb") as complaint:
        process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaint,
            cwd="/",
            env={"LANG": "C.UTF-8"},
            start_new_session=True,
            close_fds=True,
        )
    if process.stdin is not None:
        try:
            process.stdin.write(task.pack())
            process.stdin.close()
        except (
            BrokenPipeError
        ):  # another supervisor was there first, or this one could not begin: it is looked at later
            process.stdin = None
    return process
