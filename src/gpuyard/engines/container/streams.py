"""Streams of an engine: the raw connection that an exec turns into, and the frames that carry two streams in one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from gpuyard.engines.container.api import EngineGone, EngineRefused

_HEADER = 8
STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}


async def hijack(socket: Path, path: str, body: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A POST whose connection then carries raw bytes both ways.

    Raises EngineRefused or EngineGone.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as error:
        raise EngineGone(str(error)) from error
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    writer.write(head.encode() + payload)
    try:
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (OSError, asyncio.IncompleteReadError) as error:
        writer.close()
        raise EngineGone(str(error)) from error
    status = int(answer.split(" ", 2)[1])
    if status not in (101, 200):
        message = (await reader.read(4096)).decode("utf-8", "replace")
        writer.close()
        raise EngineRefused(status, message)
    return reader, writer


async def frame(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """The next frame: which stream, and what; None at the end, also where it was cut in the middle."""
    try:
        header = await reader.readexactly(_HEADER)
        return STREAMS.get(header[0], "stdout"), await reader.readexactly(int.from_bytes(header[4:], "big"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """The frames of a body that comes in pieces of any size."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _HEADER:
            size = int.from_bytes(buffer[4:_HEADER], "big")
            if len(buffer) < _HEADER + size:
                break
            stream = STREAMS.get(buffer[0], "stdout")
            payload = bytes(buffer[_HEADER : _HEADER + size])
            del buffer[: _HEADER + size]
            yield stream, payload
