"""Finding an engine that listens on this machine, or starting one where only the program is there.

Only unix sockets: over the network an engine would run units on another machine, and in clear.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.engines.container.api import EngineApi, EngineGone, EngineRefused

_PURE_CGROUP_V2: Final = Path("/sys/fs/cgroup/cgroup.controllers")
_STARTS_WITHIN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class EngineSocket:
    """An engine that answered."""

    path: Path
    podman: bool
    version: str


def candidates(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where an engine may listen: what the environment names, else the usual places. Podman first, which needs no
    daemon of root's to be trusted with everything."""
    env = os.environ if environment is None else environment
    named = [env[name] for name in ("DOCKER_HOST", "CONTAINER_HOST") if env.get(name)]
    if named:
        return [Path(value.removeprefix("unix://")) for value in named if value.startswith("unix://")]
    usual = [Path("/run/podman/podman.sock")]
    if env.get("XDG_RUNTIME_DIR"):
        usual.append(Path(env["XDG_RUNTIME_DIR"]) / "podman" / "podman.sock")
    return [*usual, Path("/var/run/docker.sock")]


def find_socket(environment: Mapping[str, str] | None = None) -> EngineSocket | None:
    """The first engine that answers; None where none does. An environment that names one that does not answer, or one
    that is no unix socket, is not overruled by the usual places."""
    for path in candidates(environment):
        found = ask(path)
        if found is not None:
            return found
    return None


def ask(path: Path) -> EngineSocket | None:
    """Who listens there; None where nobody does who could be an engine."""
    if not _is_socket(path):
        return None
    api = EngineApi(path)
    try:
        version = api.get("/version")
        names = [str(part.get("Name", "")) for part in version.get("Components") or []]
        return EngineSocket(path, any("podman" in name.lower() for name in names), str(version.get("Version", "")))
    except (EngineGone, EngineRefused, ValueError, AttributeError):
        return None
    finally:
        api.close()


class PrivatePodman:
    """Podman's API, served by a process of this yard's own on a socket that only its user may open.

    The service is a door and nothing more: units outlive it. A yard that was killed leaves it behind, and the next one
    on the same state takes it over.
    """

    def __init__(self, state: Path, podman: str, arguments: tuple[str, ...] = ()) -> None:
        """`state` is the yard's folder, `podman` the program, `arguments` go before its command."""
        self._state = state.absolute()
        self._program = podman
        self._arguments = arguments
        self._pid_file = state / "podman.pid"

    @classmethod
    def available(cls, state: Path) -> PrivatePodman | None:
        """None where this machine has no podman."""
        podman = shutil.which("podman")
        return None if podman is None else cls(state, podman, oci_runtime_arguments())

    @property
    def socket(self) -> Path:
        """Short whatever the state's path is, as the name of a unix socket must be (107 bytes)."""
        inside = self._state / "podman.sock"
        if len(os.fsencode(inside)) < 100:
            return inside
        digest = hashlib.sha256(os.fsencode(self._state)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"gpuyard-{os.getuid()}-{digest}" / "podman.sock"

    def start(self) -> EngineSocket | None:
        """The engine, running already or started now; None where podman cannot serve here (its own words are in
        `podman.log` below the state)."""
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.socket.parent.stat().st_uid != os.getuid():
            return None  # somebody else was there first with a folder of that name
        found = ask(self.socket)
        if found is not None:
            return found
        self.socket.unlink(missing_ok=True)
        command = [self._program, *self._arguments, "system", "service", "--time=0", f"unix://{self.socket}"]
        with (self._state / "podman.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self._state
            )
        self._pid_file.write_text(str(process.pid))
        until = time.monotonic() + _STARTS_WITHIN_S
        while found is None and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
            found = ask(self.socket)
        return found

    def stop(self) -> None:
        """Ends the service, also one that an earlier yard started. Units run on."""
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if os.fsencode(f"unix://{self.socket}") in arguments:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._pid_file.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)


def oci_runtime_arguments() -> tuple[str, ...]:
    """crun, Podman's default, refuses machines whose cgroups are version 1 or mixed; runc does not."""
    if not _PURE_CGROUP_V2.exists() and shutil.which("runc"):
        return ("--runtime", "runc")
    return ()


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
