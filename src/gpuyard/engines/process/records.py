"""The record of a unit: one file of fixed size, written in place, so that a full disk cannot lose an end.

All of it is allocated before the unit starts. Each section has one writer at a time and a checksum: a torn or never
written section reads as absent. Whoever holds the exclusive flock on the file owns the unit; the kernel drops it when
the last process that holds it dies, however that happens.
"""

# ruff: noqa: PTH123 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import fcntl
import os
import struct
from binascii import crc32

SIZE = 65536
_HEAD = struct.Struct("<II")  # length, checksum
_SECTIONS = {"claim": (0, 256), "start": (256, 512), "beat": (768, 256), "end": (1024, 3072), "stop": (4096, 61440)}

_CLAIM = struct.Struct("<qqq36s")  # monotonic ns, supervisor pid+ticks (0: none), boot id
_START = struct.Struct("<qqq36s16s")  # child pid+ticks, started ns, boot id, mark
_BEAT = struct.Struct("<q36s")
_END = struct.Struct("<qB36si32s")  # monotonic ns (-1: none), recorded, boot id, exit code (-1: none), reason; detail
_STOP = struct.Struct("<q")  # grace in µs; then the checkpoint command, each argument ended by NUL

MAX_DETAIL = 2048
MAX_CHECKPOINT = 61440 - _HEAD.size - _STOP.size


class Claim:
    """The unit was begun: it never is again. Who began it, unless it was ended unbegun.

    Ticks are field 22 of /proc/<pid>/stat: with the pid they name a process for good.
    """

    __slots__ = ("at_ns", "boot_id", "supervisor_pid", "supervisor_ticks")

    def __init__(self, at_ns: int, supervisor_pid: int, supervisor_ticks: int, boot_id: str) -> None:
        self.at_ns = at_ns
        self.supervisor_pid = supervisor_pid
        self.supervisor_ticks = supervisor_ticks
        self.boot_id = boot_id


class Start:
    """The unit's first process, its moment, and the mark that all of its processes carry."""

    __slots__ = ("boot_id", "child_pid", "child_ticks", "mark", "started_ns")

    def __init__(self, child_pid: int, child_ticks: int, started_ns: int, boot_id: str, mark: str) -> None:
        self.child_pid = child_pid
        self.child_ticks = child_ticks
        self.started_ns = started_ns
        self.boot_id = boot_id
        self.mark = mark


class End:
    """How the unit ended. `recorded` is False where nobody saw it and `at_ns` is only the last sign of life."""

    __slots__ = ("at_ns", "boot_id", "detail", "exit_code", "reason", "recorded")

    def __init__(
        self, at_ns: int | None, boot_id: str, exit_code: int | None, reason: str, detail: str, recorded: bool
    ) -> None:
        self.at_ns = at_ns
        self.boot_id = boot_id
        self.exit_code = exit_code
        self.reason = reason
        self.detail = detail
        self.recorded = recorded


def create(path: str) -> None:
    """A new, empty record with every byte allocated. Raises OSError, ENOSPC among them, having left nothing behind."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = SIZE
        while left:  # zeros that were really written; a hole would need space later
            left -= os.write(fd, bytes(left))
    finally:
        os.close(fd)


class Record:
    """An open record."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Gives the file back, and with it a lock that was taken through this object."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def try_lock(self) -> bool:
        """Takes the exclusive lock if nobody has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Gives the lock back."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def write_claim(self, claim: Claim) -> None:
        """Only for the holder of the lock."""
        ids = (claim.supervisor_pid, claim.supervisor_ticks, claim.boot_id.encode())
        self._write("claim", _CLAIM.pack(claim.at_ns, *ids))
        os.fdatasync(self.fd)

    def write_start(self, start: Start) -> None:
        """Only for the holder of the lock."""
        packed = _START.pack(
            start.child_pid,
            start.child_ticks,
            start.started_ns,
            start.boot_id.encode(),
            start.mark.encode(),
        )
        self._write("start", packed)

    def write_beat(self, at_ns: int, boot_id: str) -> None:
        """A sign of life; the first one says that the command runs. Only for the holder of the lock."""
        self._write("beat", _BEAT.pack(at_ns, boot_id.encode()))

    def write_end(self, end: End) -> None:
        """Only for the holder of the lock."""
        packed = _END.pack(
            -1 if end.at_ns is None else end.at_ns,
            end.recorded,
            end.boot_id.encode(),
            -1 if end.exit_code is None else end.exit_code,
            end.reason.encode(),
        )
        detail = end.detail.encode("utf-8", "replace")[:MAX_DETAIL]
        self._write("end", packed + detail)
        os.fdatasync(self.fd)

    def write_stop(self, grace_us: int, checkpoint: tuple[str, ...]) -> None:
        """Asks for an end; the first to ask decides. A checkpoint command that is too long to keep is left out."""
        command = b"".join(os.fsencode(argument) + b"\0" for argument in checkpoint)
        self._write("stop", _STOP.pack(grace_us) + (command if len(command) <= MAX_CHECKPOINT else b""))

    def claim(self) -> Claim | None:
        """Whether the unit was begun."""
        data = self._read("claim")
        if data is None:
            return None
        at_ns, pid, ticks, boot_id = _CLAIM.unpack(data)
        return Claim(at_ns, pid, ticks, _text(boot_id))

    def start(self) -> Start | None:
        """Who runs it, once a process was made for it."""
        data = self._read("start")
        if data is None:
            return None
        pid, ticks, started_ns, boot_id, mark = _START.unpack(data)
        return Start(pid, ticks, started_ns, _text(boot_id), _text(mark))

    def beat(self) -> tuple[int, str] | None:
        """The last sign of life and its boot."""
        data = self._read("beat")
        if data is None:
            return None
        at_ns, boot_id = _BEAT.unpack(data)
        return at_ns, _text(boot_id)

    def end(self) -> End | None:
        """How it ended, if it has."""
        data = self._read("end")
        if data is None:
            return None
        at_ns, recorded, boot_id, exit_code, reason = _END.unpack_from(data)
        return End(
            None if at_ns < 0 else at_ns,
            _text(boot_id),
            None if exit_code < 0 else exit_code,
            _text(reason),
            data[_END.size :].decode("utf-8", "ignore"),
            bool(recorded),
        )

    def stop(self) -> tuple[int, tuple[str, ...]] | None:
        """The grace in microseconds and the checkpoint command, if an end was asked for."""
        data = self._read("stop")
        if data is None:
            return None
        (grace_us,) = _STOP.unpack_from(data)
        command = data[_STOP.size :].split(b"\0")[:-1]
        return grace_us, tuple(os.fsdecode(argument) for argument in command)

    def _read(self, section: str) -> bytes | None:
        offset, size = _SECTIONS[section]
        data = os.pread(self.fd, size if section != "stop" else 4096, offset)
        length, checksum = _HEAD.unpack_from(data)
        if not 0 < length <= size - _HEAD.size:
            return None
        if length > len(data) - _HEAD.size:
            data = os.pread(self.fd, size, offset)
        body = data[_HEAD.size : _HEAD.size + length]
        return body if crc32(body) == checksum else None

    def _write(self, section: str, body: bytes) -> None:
        offset, size = _SECTIONS[section]
        if len(body) > size - _HEAD.size:
            raise ValueError(f"{len(body)} bytes do not fit the section {section}")
        os.pwrite(self.fd, _HEAD.pack(len(body), crc32(body)) + body, offset)


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()


def boot_id() -> str:
    """The kernel's name for this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
