"""A real `gpuyard up` in folders of its own, and the real command line in front of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx


class RealYard:
    """Starts, kills and asks a yard. Everything it makes lies below `home`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.state = home / "state"
        self.options = options or ("--simulate", "2xRTX4090")
        self.environment = {
            "HOME": str(home),
            "GPUYARD_STATE": str(self.state),
            # Only the native parts lie there, by their content: built once, not once for every yard.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
        }
        self.server: subprocess.Popen[bytes] | None = None
        self.logged_in = False
        self.starts = 0

    def up(self) -> None:
        """Starts it, waits until it answers, and logs in the first time."""
        self.starts += 1
        log = self.home / f"up-{self.starts}.log"
        with log.open("w") as file:
            command = ["gpuyard", "up", "--port", "0", *self.options]
            self.server = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        told = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log.read_text)
        self.address = told[0]
        if not self.logged_in:
            login = wait_for(lambda: re.search(r"(?m)^\s*gpuyard login (.*)$", log.read_text()), log.read_text)
            self.token = re.findall(r"gy_\S+", login[1])[0]
            self.logged_in = True
        self.run("login", "--url", self.address, "--token", self.token)

    def kill(self) -> None:
        """With -9: nothing is tidied up."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """What a command printed and how it ended."""
        environment = {**self.environment, **options.pop("environment", {})}
        return subprocess.run(
            ["gpuyard", *words], env=environment, capture_output=True, text=True, timeout=90, **options
        )

    def run(self, *words: str, **options: Any) -> str:
        """What it printed. Raises AssertionError where it failed."""
        done = self.cli(*words, **options)
        assert done.returncode == 0, f"gpuyard {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        """The one document that it printed."""
        return json.loads(self.run(*words, "--json"))

    def get(self, path: str) -> Any:
        """What the API answers below /v1."""
        return httpx.get(f"{self.address}/v1/{path}", headers={"Authorization": f"Bearer {self.token}"}).json()

    def instance(self, name: str, *command: str, offer: str = "rtx4090-quarter") -> dict[str, Any]:
        """The lease of a new instance, once it is active."""
        self.run("run", "--offer", offer, "--instance", "--name", name, "--stop-grace", "1s", "--", *command)
        (lease,) = wait_for(lambda: [each for each in self.json("show", name)["leases"] if each["state"] == "active"])
        return lease

    def close(self) -> None:
        """Stops everything, whatever state it is in."""
        if self.server is not None and self.server.poll() is None:
            self.cli("down", "--stop-workloads")
            if self.server.poll() is None:
                self.server.terminate()
                self.server.wait(20)
        for pid in processes_below(self.home):
            os.kill(pid, signal.SIGKILL)


def processes_below(folder: Path) -> list[int]:
    """Processes that were started with this home."""
    mark = f"HOME={folder}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                content = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark in content.split(b"\0") or str(folder).encode() in content:
                found.append(int(entry.name))
    return found


def commands_below(folder: Path) -> list[bytes]:
    """What those processes are, to tell of them."""
    found: list[bytes] = []
    for pid in processes_below(folder):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        except OSError:
            continue
    return found


T = TypeVar("T")


def wait_for(ready: Callable[[], T | None], told: Callable[[], object] = lambda: "", seconds: float = 30) -> T:
    """What `ready` gives once it gives something. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = ready()
        if found:
            return found
        assert time.monotonic() < deadline, told()
        time.sleep(0.03)
