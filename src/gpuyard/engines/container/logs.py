"""A container's output as lines.

Docker stamps them to the nanosecond. So does Podman in the file that its monitor writes, but its API cuts the stamps to
whole seconds; so where that file may be read it is, and the API is asked where not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from gpuyard.engines.container.api import EngineGone
from gpuyard.engines.container.streams import frames
from gpuyard.engines.runtime import LogLine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POLL_S = 0.1
_LONGEST = 1 << 20  # a line that never ends is cut here, so that a unit cannot fill this process


async def lines(socket: Path, name: str, since_us: int | None, follow: bool) -> AsyncIterator[LogLine]:
    """Lines so far, by the engine's API; with `follow`, on until the container ends. Nothing where there is none.

    Where stamps are whole seconds, a line of the second of `since_us` counts as after it.
    """
    import httpx

    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
    if since_us is not None:
        query["since"] = str(since_us // 1_000_000)
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    limits = httpx.Timeout(30.0, read=None)
    try:
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=limits) as client,
            client.stream("GET", f"/containers/{quote(name)}/logs", params=query) as answer,
        ):
            if answer.status_code == 404:
                return
            if answer.status_code >= 400:
                raise EngineGone(f"HTTP {answer.status_code}")
            async for line in _joined(_stamped(frames(answer.aiter_raw()))):
                if since_us is None or not _before(line.at_us, since_us):
                    yield line
    except httpx.TransportError as error:
        raise EngineGone(f"{socket}: {error or type(error).__name__}") from error


def _before(at_us: int, since_us: int) -> bool:
    whole_second = at_us % 1_000_000 == 0
    return at_us + (999_999 if whole_second else 0) < since_us


async def lines_of_file(
    path: Path, since_us: int | None, follow: bool, has_ended: Callable[[], bool]
) -> AsyncIterator[LogLine]:
    """The same from the file that Podman's monitor writes. `has_ended` is asked in a thread."""
    async for line in _joined(_pieces(path, follow, has_ended)):
        if since_us is None or line.at_us >= since_us:
            yield line


async def _pieces(path: Path, follow: bool, has_ended: Callable[[], bool]) -> AsyncIterator[tuple[str, int, bytes]]:
    """Pieces of lines: `<moment> <stream> <P for part or F for full> <text>`, one to a line of the file."""
    position, rest, inode = 0, b"", 0
    while True:
        over = not follow or await asyncio.to_thread(has_ended)  # asked first, so that nothing comes after the reading
        while True:
            try:
                with path.open("rb") as file:
                    found = os.fstat(file.fileno())
                    if found.st_ino != inode or found.st_size < position:
                        position, rest, inode = 0, b"", found.st_ino  # the monitor began a new one at the size limit
                    file.seek(position)
                    block = file.read(_LONGEST)
            except FileNotFoundError:
                block = b""
            if not block:
                break
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                stamp, stream, tag, text = line.split(b" ", 3)
                yield stream.decode("ascii"), _stamp_us(stamp), text + (b"\n" if tag == b"F" else b"")
        if over:
            return
        await asyncio.sleep(_POLL_S)


async def _stamped(pieces: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, int, bytes]]:
    async for stream, payload in pieces:
        stamp, _, text = payload.partition(b" ")
        yield stream, _stamp_us(stamp), text


async def _joined(pieces: AsyncIterator[tuple[str, int, bytes]]) -> AsyncIterator[LogLine]:
    """Whole lines: engines cut long ones and stamp every piece."""
    open_lines: dict[str, tuple[int, bytes]] = {}
    async for stream, stamp_us, text in pieces:
        at_us, before = open_lines.pop(stream, (stamp_us, b""))
        whole = before + text
        if not whole.endswith(b"\n") and len(whole) < _LONGEST:
            open_lines[stream] = (at_us, whole)
            continue
        yield LogLine(at_us, stream, whole.removesuffix(b"\n").decode("utf-8", "replace"))
    for stream, (at_us, rest) in open_lines.items():
        yield LogLine(at_us, stream, rest.decode("utf-8", "replace"))


def _stamp_us(stamp: bytes) -> int:
    return (datetime.fromisoformat(stamp.decode("ascii")) - _EPOCH) // timedelta(microseconds=1)
