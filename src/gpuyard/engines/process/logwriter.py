"""A unit's output as a log in the CRI format, bounded in size: `<RFC 3339 with nanoseconds> <stream> <F|P> <text>`.

P marks a piece of a line that was too long to be kept whole; the F that follows ends it. On a full disk lines are
dropped and counted: the unit goes on.
"""

# ruff: noqa: PTH104 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import os
import time

MAX_LINE = 16384
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class LogWriter:
    """Writes `path`; what no longer fits moves to `path`.1, and what was there goes."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.dropped = 0
        self._pending = {"stdout": b"", "stderr": b""}
        self._fd = -1
        self._size = 0
        self._open()

    def feed(self, stream: str, data: bytes) -> None:
        """Output as it came; what is not yet a whole line waits for its rest."""
        *lines, rest = (self._pending[stream] + data).split(b"\n")
        stamp = _stamp(time.time_ns())
        records: list[bytes] = []
        for line in lines:
            while len(line) > MAX_LINE:
                records.append(b"%s %s P %s\n" % (stamp, stream.encode(), line[:MAX_LINE]))
                line = line[MAX_LINE:]
            records.append(b"%s %s F %s\n" % (stamp, stream.encode(), line))
        while len(rest) > MAX_LINE:
            records.append(b"%s %s P %s\n" % (stamp, stream.encode(), rest[:MAX_LINE]))
            rest = rest[MAX_LINE:]
        self._pending[stream] = rest
        if records:
            self._append(records)

    def finish(self) -> None:
        """Writes lines that were never ended, and how many were lost."""
        for stream, rest in self._pending.items():
            if rest:
                self._pending[stream] = b""
                self._append([b"%s %s F %s\n" % (_stamp(time.time_ns()), stream.encode(), rest)])
        self._append([])

    def _open(self) -> bool:
        if self._fd >= 0:
            return True
        try:
            self._fd = os.open(self.path, _FLAGS, 0o600)
        except OSError:  # no room for even a file: tried again with the next line
            return False
        self._size = os.fstat(self._fd).st_size
        return True

    def _append(self, records: list[bytes]) -> None:
        if self.dropped:
            note = b"gpuyard: %d lines were dropped because the disk was full" % self.dropped
            told = b"%s stderr F %s\n" % (_stamp(time.time_ns()), note)
            if not self._write(told):
                self.dropped += len(records)
                return
            self.dropped = 0
        batch: list[bytes] = []
        room = self.max_bytes - self._size
        for record in records:
            if len(record) > room and (batch or self._size):
                self._flush(batch)
                self._rotate()
                batch, room = [], self.max_bytes - self._size
            batch.append(record)
            room -= len(record)
        self._flush(batch)

    def _flush(self, batch: list[bytes]) -> None:
        if batch and not self._write(b"".join(batch)):
            self.dropped += len(batch)

    def _write(self, data: bytes) -> bool:
        """All of it or nothing: a torn tail is cut off again, which needs no space."""
        if not self._open():
            return False
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        if written == len(data):
            self._size += written
            return True
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:  # a read-only or broken disk: nothing more can be done for this line
            return False
        return False

    def _rotate(self) -> None:
        try:
            os.rename(self.path, self.path + ".1")
        except OSError:  # it stays larger than it should until the next line
            return
        os.close(self._fd)
        self._fd = -1
        self._size = 0


def _stamp(now_ns: int) -> bytes:
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanoseconds
