"""The protocol of a runtime: something that runs units on this node and can be asked what runs.

A unit is one attempt at running one replica. Its name is deterministic and used once, so that `start` may be called
again after a crash: it looks first. Every method may be called from any thread. Times are the node's monotonic
nanoseconds within its present boot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol

from gpuyard.model.slices import Slice
from gpuyard.model.workloads import Mount


class UnitState(StrEnum):
    """CREATED is not yet running; EXITED has ended and keeps its record until it is forgotten."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Unit:
    """Everything a runtime needs to run one attempt. `environment` already holds what the yard adds."""

    name: str
    disk: str  # the lease's disk; outlives the unit
    tenant_id: str
    command: tuple[str, ...]
    image: str | None
    environment: Mapping[str, str]
    secrets: Mapping[str, str]  # joined to the environment inside the unit; never written to disk or logs
    mounts: tuple[Mount, ...]
    ports: tuple[int, ...]
    working_directory: str | None
    cpu_milli: int
    memory_bytes: int
    slices: tuple[Slice, ...]
    simulated_cards: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of a unit now.

    `proven_ns`: the last moment it is proven to have run (for EXITED: when it ended). `boot_id` names the boot that
    both times belong to. `reason` is a text key when there is one to tell: exited, killed, out_of_memory,
    supervisor_lost, start_failed (with `detail`), stopped.
    """

    name: str
    state: UnitState
    boot_id: str
    started_ns: int | None = None
    proven_ns: int | None = None
    recorded: bool = False  # the end comes from an exit record, not from a last sign of life
    exit_code: int | None = None  # 128 + n for a signal n
    reason: str | None = None
    detail: str | None = None
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict[int, tuple[str, int]])  # declared -> (host, port)
    share_ppm: int | None = None  # of the cards that it was started on, by the node's record; None: not recorded


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a runtime isolates and what it plainly does not, as text keys (`isolation.<key>`)."""

    enforces: tuple[str, ...]
    not_protected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a unit's output. `at_us` is wall time as the runtime stamped it."""

    at_us: int
    stream: str  # stdout or stderr
    text: str


class Session(Protocol):
    """A command run inside a unit beside its main one. Reads end with b"" when the command has ended."""

    async def read(self) -> bytes:
        """The next piece of output (stdout and stderr joined); b"" once the command has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Bytes for its standard input; b"" closes it."""
        ...

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size; nothing where there is no terminal."""
        ...

    async def wait(self) -> int:
        """The exit code."""
        ...

    async def close(self) -> None:
        """Ends the command if it still runs."""
        ...


class Runtime(Protocol):
    """Runs units on this node."""

    kind: str  # process, container, simulated

    @property
    def isolation(self) -> Isolation:
        """What this runtime isolates here, now, as found and not as hoped."""
        ...

    def check_image(self, image: str | None) -> None:
        """Raises YardError `unknown_image` or `runtime_unavailable` where a unit with this image could not start."""
        ...

    def start(self, unit: Unit) -> None:
        """Starts the unit, or does nothing if a unit of this name was ever started. Returns without waiting for it.

        Raises YardError `engine_failed` where it cannot be started now but may be later; a unit that can never start
        is EXITED with reason `start_failed` instead.
        """
        ...

    def stop(self, name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        """Asks the unit to end: the checkpoint command inside it, SIGTERM, and SIGKILL once the grace is over (the
        checkpoint counts towards it). Returns at once; asking again changes nothing; an unknown name is no error."""
        ...

    def observe(self) -> Mapping[str, Observation]:
        """Every unit that this runtime knows of, running or ended and not forgotten, by name."""
        ...

    def forget(self, name: str) -> None:
        """Drops the record and logs of an ended unit (a running one is killed first). Its disk stays."""
        ...

    def remove_disk(self, disk: str) -> None:
        """Deletes a disk. An unknown one is no error."""
        ...

    def disks(self) -> frozenset[str]:
        """The disks that exist."""
        ...

    def logs(self, name: str, since_us: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines so far; with `follow`, on until the unit has ended."""
        ...

    async def execute(
        self, name: str, command: tuple[str, ...], terminal: bool, columns: int = 80, rows: int = 24
    ) -> Session:
        """Runs a command inside a running unit.

        Raises YardError `not_running`.
        """
        ...

    def read_files(self, disk: str, name: str | None, path: str) -> Iterator[bytes]:
        """A tar stream of a file or folder. `name` is the running or last unit, for runtimes that need one.

        Raises YardError `file_not_found` or `invalid_path` before the first byte.
        """
        ...

    def write_files(self, disk: str, name: str | None, path: str, tar: BinaryIO) -> None:
        """Unpacks a tar stream into a folder, which is made where it is missing; never outside the unit's own files.

        Raises YardError `invalid_path` or `storage_full`.
        """
        ...
