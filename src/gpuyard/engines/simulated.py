"""A runtime that runs nothing: units live in memory and age with the clock that is given.

It never starts a process and costs a dictionary entry a unit, so that a thousand-card yard runs on a laptop and tests
own the time. A unit whose command is ("sleep", "N") ends by itself N seconds after it began; any other runs until it is
stopped, or until a test ends it through `finish` or `crash`. One whose environment has SIMULATED_SENDING sends as many
bytes a second.
"""

# ruff: noqa: ARG002 - the protocol names arguments that nothing simulated needs

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import BinaryIO, Final

from gpuyard.engines.activity import Activity
from gpuyard.engines.memory_disk import MemoryDisk
from gpuyard.engines.runtime import Isolation, LogLine, Observation, Unit, UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.slices import share_of
from gpuyard.model.times import Clock

TERMINATED: Final = 143  # 128 + SIGTERM
FRESH_NS: Final = 250_000_000  # looks that follow each other faster than this see the same
KILLED: Final = 137  # 128 + SIGKILL
SENDING: Final = "SIMULATED_SENDING"  # bytes a second, in a unit's environment


@dataclass(slots=True)
class _Live:
    """A unit that has not ended, as it was started."""

    unit: Unit
    boot_id: str
    begins_ns: int
    begins_us: int
    seen_ns: int
    ends_ns: int | None
    running: Observation | None = None  # as it was last told


@dataclass(slots=True)
class _Ended:
    disk: str
    lines: tuple[LogLine, ...]
    observation: Observation
    sent_bytes: int = 0


@dataclass(slots=True)
class _Shelf:
    live: dict[str, _Live] = field(default_factory=dict[str, _Live])
    ended: dict[str, _Ended] = field(default_factory=dict[str, _Ended])
    disks: dict[str, MemoryDisk | None] = field(default_factory=dict[str, MemoryDisk | None])  # None: empty


class SimulatedRuntime:
    """Units that only age. `start_delay_us` is how long a unit stays CREATED."""

    kind = "simulated"

    def __init__(self, clock: Clock, start_delay_us: int = 0) -> None:
        self.start_delay_us = start_delay_us
        self._clock = clock
        self._shelf = _Shelf()
        self._lock = RLock()

    @property
    def isolation(self) -> Isolation:
        """Nothing runs, so there is nothing to isolate."""
        return Isolation(enforces=(), not_protected=())

    def check_image(self, image: str | None) -> None:
        """Any image will do, as none is opened."""

    def start(self, unit: Unit) -> None:
        """The unit begins `start_delay_us` from now; a name that was started before is left as it is."""
        with self._lock:
            if unit.name in self._shelf.live or unit.name in self._shelf.ended:
                return
            self._shelf.disks.setdefault(unit.disk, None)
            now_ns = self._clock.monotonic_ns()
            begins_ns = now_ns + self.start_delay_us * 1000
            self._shelf.live[unit.name] = _Live(
                unit=unit,
                boot_id=self._clock.boot_id,
                begins_ns=begins_ns,
                begins_us=self._clock.now_us() + self.start_delay_us,
                seen_ns=now_ns,
                ends_ns=_own_end_ns(unit, begins_ns),
            )

    def stop(self, name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        """Ends the unit at once: nothing in it could need the grace."""
        with self._lock:
            self._age()
            if name in self._shelf.live:
                self._end(name, TERMINATED, "stopped")

    def finish(self, name: str, exit_code: int = 0) -> None:
        """A test door: the unit ends by itself with this code.

        Raises KeyError where it does not run.
        """
        with self._lock:
            self._age()
            self._end(name, exit_code, "exited")

    def crash(self, name: str) -> None:
        """A test door: the unit is killed from outside.

        Raises KeyError where it does not run.
        """
        with self._lock:
            self._age()
            self._end(name, KILLED, "killed")

    def lose(self, name: str) -> None:
        """A test door: what watches the unit is killed, so that nobody recorded when it ended.

        Raises KeyError where it does not run.
        """
        with self._lock:
            self._end_unseen(name)

    def observe(self) -> Mapping[str, Observation]:
        """Every unit, as old as the clock says."""
        with self._lock:
            self._age()
            now_ns = self._clock.monotonic_ns()
            seen = {name: ended.observation for name, ended in self._shelf.ended.items()}
            for name, live in self._shelf.live.items():
                if now_ns < live.begins_ns:
                    seen[name] = Observation(name, UnitState.CREATED, live.boot_id)
                else:
                    seen[name] = live.running = _running(name, live, now_ns)
            return seen

    def sent_bytes(self, name: str) -> int | None:
        """What its environment says that it sends a second, for as long as it runs or ran."""
        with self._lock:
            live, ended = self._shelf.live.get(name), self._shelf.ended.get(name)
            if live is None:
                return None if ended is None else ended.sent_bytes
            if live.boot_id != self._clock.boot_id:
                return _sent(live, live.seen_ns)
            now_ns = self._clock.monotonic_ns()
            return _sent(live, now_ns if live.ends_ns is None else min(now_ns, live.ends_ns))

    def activity(self, name: str) -> Activity:
        """What it sends is all that it does."""
        return Activity(network_bytes=self.sent_bytes(name))

    def forget(self, name: str) -> None:
        """The unit was never here."""
        with self._lock:
            self._shelf.live.pop(name, None)
            self._shelf.ended.pop(name, None)

    def remove_disk(self, disk: str) -> None:
        """Drops the disk and what was copied to it."""
        with self._lock:
            self._shelf.disks.pop(disk, None)

    def disks(self) -> frozenset[str]:
        """The disks of all units that were started and not removed."""
        with self._lock:
            return frozenset(self._shelf.disks)

    async def logs(self, name: str, since_us: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        """One line that says what would run here, and one when it has ended."""
        told = 0
        while True:
            with self._lock:
                self._age()
                ended = self._shelf.ended.get(name)
                live = self._shelf.live.get(name)
            lines = ended.lines if ended else _first_line(live, self._clock.monotonic_ns()) if live else ()
            for line in lines[told:]:
                if since_us is None or line.at_us >= since_us:
                    yield line
            told = max(told, len(lines))
            if live is None or not follow:
                return
            await asyncio.sleep(0.02)

    async def execute(
        self, name: str, command: tuple[str, ...], terminal: bool, columns: int = 80, rows: int = 24
    ) -> EchoSession:
        """A session that says what it would run and then echoes what it is sent."""
        observation = self.observe().get(name)
        if observation is None or observation.state is not UnitState.RUNNING:
            raise YardError("not_running", workload=name, state=observation.state if observation else "gone")
        return EchoSession(command)

    def read_files(self, disk: str, name: str | None, path: str) -> Iterator[bytes]:
        """A tar stream of what was copied in."""
        with self._lock:
            if disk not in self._shelf.disks:
                raise YardError("file_not_found", path=path)
            return iter((self._disk(disk).pack(path),))

    def write_files(self, disk: str, name: str | None, path: str, tar: BinaryIO) -> None:
        """Keeps the files in memory until the disk is removed."""
        with self._lock:
            self._disk(disk).unpack(path, tar)

    def _disk(self, name: str) -> MemoryDisk:
        held = self._shelf.disks.get(name)
        if held is None:
            held = self._shelf.disks[name] = MemoryDisk()
        return held

    def _age(self) -> None:
        """Moves units whose time has come to the ended ones."""
        now_ns, boot_id = self._clock.monotonic_ns(), self._clock.boot_id
        for name, live in list(self._shelf.live.items()):
            if live.boot_id != boot_id:
                self._end_unseen(name)
            elif live.ends_ns is not None and live.ends_ns <= now_ns:
                self._end(name, 0, "exited", live.ends_ns)
            else:
                live.seen_ns = now_ns

    def _end(self, name: str, exit_code: int, reason: str, at_ns: int | None = None) -> None:
        live = self._shelf.live[name]
        at_ns = self._clock.monotonic_ns() if at_ns is None else at_ns
        begun = at_ns >= live.begins_ns
        self._put_away(
            live,
            Observation(
                name,
                UnitState.EXITED,
                live.boot_id,
                started_ns=live.begins_ns if begun else None,
                proven_ns=at_ns,
                recorded=True,
                exit_code=exit_code if begun else None,
                reason=reason,
                share_ppm=share_of(live.unit.slices),
            ),
        )

    def _end_unseen(self, name: str) -> None:
        live = self._shelf.live[name]
        begun = live.seen_ns >= live.begins_ns
        self._put_away(
            live,
            Observation(
                name,
                UnitState.EXITED,
                live.boot_id,
                started_ns=live.begins_ns if begun else None,
                proven_ns=live.seen_ns if begun else None,
                reason="supervisor_lost",
                share_ppm=share_of(live.unit.slices),
            ),
        )

    def _put_away(self, live: _Live, observation: Observation) -> None:
        del self._shelf.live[live.unit.name]
        lines = _first_line(live, observation.proven_ns or 0)
        if lines and observation.proven_ns is not None:
            at_us = live.begins_us + (observation.proven_ns - live.begins_ns) // 1000
            lines += (LogLine(at_us, "stdout", f"simulated: ended ({observation.reason})"),)
        sent_bytes = _sent(live, observation.proven_ns or 0)
        self._shelf.ended[live.unit.name] = _Ended(live.unit.disk, lines, observation, sent_bytes)


class EchoSession:
    """What `execute` gives where nothing runs."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        self._output.put_nowait(f"simulated: {' '.join(command)}\r\n".encode())
        self._ended = asyncio.Event()

    async def read(self) -> bytes:
        """What was written, then b"" once the input was closed."""
        if self._ended.is_set() and self._output.empty():
            return b""
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        """Echoed; b"" ends the session."""
        if self._ended.is_set():
            return
        if not data:
            self._ended.set()
        self._output.put_nowait(data)

    async def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""

    async def wait(self) -> int:
        """0 once the input was closed."""
        await self._ended.wait()
        return 0

    async def close(self) -> None:
        """Ends the session."""
        await self.write(b"")


def _running(name: str, live: _Live, now_ns: int) -> Observation:
    """A unit that runs; one that was told of a moment ago is told of as it was."""
    known = live.running
    if known is not None and known.proven_ns is not None and 0 <= now_ns - known.proven_ns < FRESH_NS:
        return known
    return Observation(
        name,
        UnitState.RUNNING,
        live.boot_id,
        started_ns=live.begins_ns,
        proven_ns=now_ns,
        share_ppm=share_of(live.unit.slices),
    )


def _sent(live: _Live, until_ns: int) -> int:
    told = live.unit.environment.get(SENDING, "0")
    rate = int(told) if told.isascii() and told.isdigit() else 0
    return rate * max(0, until_ns - live.begins_ns) // 1_000_000_000


def _own_end_ns(unit: Unit, begins_ns: int) -> int | None:
    match unit.command:
        case ("sleep", seconds) if seconds.isascii() and seconds.isdigit():
            return begins_ns + int(seconds) * 1_000_000_000
        case _:
            return None


def _first_line(live: _Live, now_ns: int) -> tuple[LogLine, ...]:
    if now_ns < live.begins_ns:
        return ()
    return (LogLine(live.begins_us, "stdout", f"simulated: {' '.join(live.unit.command)}"),)
