"""Exec and port forwarding over WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gpuyard.model.errors import YardError
from gpuyard.sdk.calls import Params
from gpuyard.sdk.errors import refusal
from gpuyard.sdk.transport import Target

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CHUNK_BYTES = 65536


class Exec:
    """A command that runs inside a workload. `read` until b"" and then `exit_code` is there."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.exit_code: int | None = None

    async def read(self) -> bytes:
        """The next piece of output; b"" once the command has ended.

        Raises YardError for what the yard says went wrong.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    return message
                told: Any = json.loads(message)
                if "problem" in told:
                    raise refusal(500, json.dumps(told["problem"]).encode())
                self.exit_code = told.get("exit_code")
        except ConnectionClosed as error:
            raise YardError("unreachable", url="--", reason=str(error)) from error
        return b""

    async def write(self, data: bytes) -> None:
        """Bytes for its standard input; nothing where it has ended already."""
        await self._send(data)

    async def end_input(self) -> None:
        """Closes its standard input."""
        await self._send(json.dumps({"eof": True}))

    async def resize(self, columns: int, rows: int) -> None:
        """Tells its terminal the size."""
        await self._send(json.dumps({"resize": [columns, rows]}))

    async def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosedOK

        with suppress(ConnectionClosedOK):  # the command ended first; `read` has the rest of its output
            await self._socket.send(message)


@asynccontextmanager
async def connect(target: Target, path: str, params: Params) -> AsyncIterator[ClientConnection]:
    """A socket of the yard.

    Raises YardError for a refusal or where nobody answers.
    """
    from websockets.asyncio.client import connect as open_socket
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    headers = target.headers
    agent = headers.pop("User-Agent")
    try:
        async with open_socket(
            target.socket_url(path, params),
            additional_headers=headers,
            user_agent_header=agent,
            max_size=None,
            proxy=None,
            compression=None,
            ssl=target.trust(),
        ) as socket:
            yield socket
    except InvalidStatus as error:
        raise refusal(error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, InvalidHandshake) as error:
        raise target.unreachable(error) from error


@asynccontextmanager
async def execute(
    target: Target,
    workload: str,
    command: list[str],
    replica: int | None = None,
    terminal: bool = False,
    columns: int = 80,
    rows: int = 24,
) -> AsyncIterator[Exec]:
    """Runs a command inside a running workload."""
    params: Params = {"command": command, "terminal": str(terminal).lower(), "columns": columns, "rows": rows}
    if replica is not None:
        params["replica"] = replica
    async with connect(target, f"/v1/workloads/{quote(workload, safe='')}/exec", params) as socket:
        yield Exec(socket)


async def collect(
    target: Target, workload: str, command: list[str], replica: int | None = None, stdin: bytes = b""
) -> tuple[int, bytes]:
    """Runs a command to its end: exit code and output."""
    output = bytearray()
    async with execute(target, workload, command, replica) as running:
        if stdin:
            await running.write(stdin)
        await running.end_input()
        while piece := await running.read():
            output += piece
        return running.exit_code if running.exit_code is not None else -1, bytes(output)


async def tunnel(
    target: Target,
    workload: str,
    port: int,
    replica: int | None,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carries one TCP connection to a port of a running workload, until either side closes it."""
    params: Params = {} if replica is None else {"replica": replica}
    async with connect(target, f"/v1/workloads/{quote(workload, safe='')}/ports/{port}", params) as socket:

        async def up() -> None:
            while data := await reader.read(CHUNK_BYTES):
                await socket.send(data)
            await socket.send(json.dumps({"eof": True}))

        sending = asyncio.create_task(up())
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    writer.write(message)
                    await writer.drain()
                elif "problem" in (told := json.loads(message)):
                    raise refusal(500, json.dumps(told["problem"]).encode())
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
