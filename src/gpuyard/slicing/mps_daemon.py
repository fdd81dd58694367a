"""One control daemon of NVIDIA's Multi-Process Service, for one card, driven by the driver's own program.

The daemon lives on when the yard is killed, and is found again by its pipe directory. It starts the server that the
card's programs share. What it is told here bounds every client, whatever the client's own environment asks for.
https://docs.nvidia.com/deploy/mps
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.model.said import Said, SaidError
from gpuyard.model.units import MIB, SHARE_WHOLE_PPM
from gpuyard.slicing.ledger import start_time_of

PIPES: Final = "CUDA_MPS_PIPE_DIRECTORY"
LOGS: Final = "CUDA_MPS_LOG_DIRECTORY"
SHARE: Final = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY: Final = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
_PROCESS_NAME: Final = "nvidia-cuda-mps"  # as the kernel cuts it off
_NOTE: Final = "nvidia-cuda-mps-control.pid"
_ASK_TIMEOUT_S: Final = 10
_START_TIMEOUT_S: Final = 15.0
_SERVER_TIMEOUT_S: Final = 2.0
_LONGEST_PATH: Final = 107 - len("/control_privileged")  # a socket's path is no longer than 107 bytes


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one client of a server may have at most: the largest slice on its card."""

    compute_ppm: int
    memory_bytes: int

    def over(self, other: Ceiling) -> Ceiling:
        """The larger of both, each by itself."""
        return Ceiling(max(self.compute_ppm, other.compute_ppm), max(self.memory_bytes, other.memory_bytes))

    @property
    def percentage(self) -> str:
        """Of the multiprocessors, as MPS takes it."""
        return f"{self.compute_ppm / 10_000:.4f}".rstrip("0").rstrip(".")

    @property
    def megabytes(self) -> str:
        """Of memory, as MPS takes it: rounded up, because the ledger holds the slice to the byte."""
        return f"{-(-self.memory_bytes // MIB)}M"

    def variables(self, pipes: str) -> dict[str, str]:
        """For a client that is to have so much (its share does not count where there are partitions). Device 0 is the
        only one that its daemon serves; to name one that is not there would lift every limit."""
        return {PIPES: pipes, SHARE: self.percentage, MEMORY: f"0={self.megabytes}"}


SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the server and its clients meet there too
_MOUNTED: Final = 'mount --bind "$0" /dev/shm && exec "$@"'


@dataclass(frozen=True, slots=True)
class MpsDaemon:
    """The daemon of one card. Nothing of it is kept here: every question is answered by what runs.

    `shared_memory`: a folder that it and its clients have for /dev/shm instead of the machine's own. `partitioned`: it
    is started for static partitions, and then shares do not count."""

    program: Path
    folder: Path
    card_uuid: str
    environment: Mapping[str, str]  # what the driver needs
    shared_memory: Path | None = None
    partitioned: bool = False

    @property
    def pipes(self) -> Path:
        """The pipe directory, which its clients are given."""
        return self.folder / "pipes"

    def within(self, command: Sequence[str]) -> list[str]:
        """The command, so that it has the /dev/shm of this daemon and its clients. Only root may run it where that is
        not the machine's."""
        if self.shared_memory is None:
            return list(command)
        own_mounts = ("unshare", "--mount", "--propagation", "private")
        return [*own_mounts, "sh", "-c", _MOUNTED, str(self.shared_memory), *command]

    def pid(self) -> int | None:
        """The living daemon; None where there is none."""
        try:
            pid = int((self.pipes / _NOTE).read_text())
            named = Path(f"/proc/{pid}/comm").read_text().startswith(_PROCESS_NAME)
        except (OSError, ValueError):
            return None
        return pid if named and start_time_of(pid) is not None else None

    def ask(self, command: str) -> str:
        """Its answer to one command. Raises OSError where it does not answer."""
        done = self._run(command + "\n")
        if done.returncode != 0:
            raise OSError(done.stdout.strip()[-200:] or "the MPS control daemon does not answer")
        return done.stdout.strip()

    def start(self) -> None:
        """Starts it where it does not run, and waits until it answers. Raises OSError."""
        if len(os.fsencode(self.pipes)) > _LONGEST_PATH:
            detail = f"{self.pipes}: too long a path for MPS; choose a state folder with a shorter one"
            raise SaidError(detail, Said("trial.mps_path", {"path": self.pipes}))
        for folder in (self.folder, self.pipes, self.folder / "log"):
            folder.mkdir(exist_ok=True, mode=0o755)
            folder.chmod(0o755)
        if self.shared_memory is not None:
            self.shared_memory.mkdir(exist_ok=True)
            self.shared_memory.chmod(0o1777)
        if self.pid() is None:
            done = self._run(None, "-d", *(["-S"] if self.partitioned else []))
            if done.returncode != 0:
                raise OSError((done.stdout + done.stderr).strip()[-200:] or f"{self.program} -d: {done.returncode}")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.ask("get_default_active_thread_percentage")
                return
            except (OSError, subprocess.TimeoutExpired):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def limit(self, ceiling: Ceiling) -> None:
        """Bounds every client that comes from now on, and has a server ready for them. Raises OSError where the daemon
        says that it does not hold."""
        share, memory = "100" if self.partitioned else ceiling.percentage, ceiling.megabytes
        self.ask(f"set_default_active_thread_percentage {share}")
        self.ask(f"set_default_device_pinned_mem_limit 0 {memory}")
        if not self.servers():
            self.ask(f"start_server -uid {os.geteuid()}")
        deadline = time.monotonic() + _SERVER_TIMEOUT_S
        while not (servers := self.servers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not servers:
            detail = "another program has the card open, or a server that outlived its daemon"
            raise SaidError(f"the MPS server does not start: {detail}", Said("trial.mps_no_server"))
        for server in servers:
            self.ask(f"set_active_thread_percentage {server} {share}")
            self.ask(f"set_device_pinned_mem_limit {server} 0 {memory}")
        told = self.ask("get_default_active_thread_percentage").split()
        if not told or abs(float(told[-1]) - float(share)) > 0.1:  # it tells one digit after the point
            detail = f"the MPS control daemon was told {share} % of the multiprocessors, and says {told}"
            raise SaidError(detail, Said("trial.mps_share", {"share": share, "told": " ".join(told)}))

    def servers(self) -> tuple[int, ...]:
        """The pids of its servers."""
        return tuple(int(word) for word in self.ask("get_server_list").split() if word.isdecimal())

    def clients(self) -> tuple[int, ...]:
        """The pids of all clients of its servers."""
        words = " ".join(self.ask(f"get_client_list {server}") for server in self.servers()).split()
        return tuple(int(word) for word in words if word.isdecimal())

    def quit(self) -> None:
        """Ends it and its servers; where it does not hear, by force. One that does not run is no error."""
        pid = self.pid()
        with suppress(OSError, subprocess.TimeoutExpired):
            self.ask("quit")
        deadline = time.monotonic() + _ASK_TIMEOUT_S
        while pid is not None and self.pid() == pid:
            if time.monotonic() > deadline:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    def _run(self, said: str | None, *words: str) -> subprocess.CompletedProcess[str]:
        variables = {PIPES: str(self.pipes), LOGS: str(self.folder / "log"), "CUDA_VISIBLE_DEVICES": self.card_uuid}
        command = [str(self.program), *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
        return subprocess.run(  # noqa: S603 - the driver's own program
            self.within(command) if words else command, input=said or "", cwd="/",
            env={**clean, **self.environment, **variables}, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S,
            check=False,
        )  # fmt: skip


def allowed_multiprocessors(total: int, compute_ppm: int) -> int:
    """How many multiprocessors a program may see that has this share of so many: they are given out in pairs."""
    part = -(-total * compute_ppm // SHARE_WHOLE_PPM)
    return min(total, part + part % 2)
