"""Reading a unit's log, across rotation and, if asked, on until the unit has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gpuyard.engines.runtime import LogLine

CHUNK: Final = 1 << 16
POLL_S: Final = 0.1


class LogReader:
    """Reads the rotated piece and then the present one; what is appended later is found by asking again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._older: int | None = _open(path.with_name(path.name + ".1"))
        self._fd: int | None = _open(path)
        if self._older is not None and self._fd is not None and os.path.sameopenfile(self._older, self._fd):
            os.close(self._older)  # it was rotated between the two opens
            self._older = None
        self._torn = b""
        self._whole: dict[str, str] = {"stdout": "", "stderr": ""}

    def lines(self) -> Iterator[LogLine]:
        """Everything from where the last call ended to the end as it is now."""
        if self._older is not None:
            yield from self._read_all(self._older)
            os.close(self._older)
            self._older = None
        while True:
            if self._fd is None:
                self._fd = _open(self._path)
            if self._fd is None:
                return
            # Looked up before the last read: what is written before a rotation is read before the file is left.
            rotated = not _is_at(self._fd, self._path)
            yield from self._read_all(self._fd)
            if not rotated:
                return
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        """Gives the files back."""
        for fd in (self._older, self._fd):
            if fd is not None:
                os.close(fd)
        self._older = self._fd = None

    def _read_all(self, fd: int) -> Iterator[LogLine]:
        while piece := os.read(fd, CHUNK):
            *lines, self._torn = (self._torn + piece).split(b"\n")
            for line in lines:
                if (parsed := self._parse(line)) is not None:
                    yield parsed

    def _parse(self, line: bytes) -> LogLine | None:
        fields = line.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in {b"stdout", b"stderr"}:
            return None  # a line that a crash tore
        stream = fields[1].decode()
        text = self._whole[stream] + fields[3].decode("utf-8", "replace")
        if fields[2] == b"P":
            self._whole[stream] = text if len(text) < 1 << 20 else ""
            return None if self._whole[stream] else LogLine(_moment_us(fields[0]), stream, text)
        self._whole[stream] = ""
        return LogLine(_moment_us(fields[0]), stream, text)


async def follow(path: Path, since_us: int | None, ended: Callable[[], bool], keep_on: bool) -> AsyncIterator[LogLine]:
    """The lines from `since_us` on; with `keep_on`, until `ended` says that no more will come."""
    reader = LogReader(path)
    try:
        while True:
            last = not keep_on or await asyncio.to_thread(ended)
            for line in reader.lines():
                if since_us is None or line.at_us >= since_us:
                    yield line
            if last:
                return
            await asyncio.sleep(POLL_S)
    finally:
        reader.close()


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _moment_us(stamp: bytes) -> int:
    whole, _, fraction = stamp.decode().rstrip("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + int(fraction[:6])
