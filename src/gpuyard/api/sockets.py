"""WebSockets into a workload: a command beside its own, and a tunnel to one of its ports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.websockets import WebSocket, WebSocketDisconnect

from gpuyard.access.rules import Action
from gpuyard.api.asking import Asking, asking
from gpuyard.api.inside import newest_leases
from gpuyard.api.problems import problem, problem_response
from gpuyard.engines.runtime import Session
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.workloads import Workload
from gpuyard.texts import language_of_header

router = APIRouter()

CHUNK_BYTES = 65536


async def _refuse(socket: WebSocket, error: YardError) -> None:
    """Before the handshake is answered a refusal is an ordinary HTTP problem."""
    language = language_of_header(socket.headers.get("accept-language"))
    await socket.send_denial_response(problem_response(error, language, socket.scope["path"]))


def _running(caller: Asking, workload: str, replica: int | None, tenant: str | None) -> tuple[Workload, Lease]:
    found = caller.workload(Action.ENTER, workload, tenant)
    for lease in newest_leases(caller, found):
        if replica in (None, lease.replica) and lease.state == "active":
            return found, lease
    raise YardError("not_running", workload=found.name, state=found.state.value)


@router.websocket("/workloads/{workload}/exec")
async def execute(
    socket: WebSocket,
    workload: str,
    command: Annotated[list[str], Query()],
    replica: Annotated[int | None, Query(ge=0)] = None,
    terminal: bool = False,
    columns: Annotated[int, Query(ge=1, le=1000)] = 80,
    rows: Annotated[int, Query(ge=1, le=1000)] = 24,
    tenant: str | None = None,
) -> None:
    """Runs a command inside a running replica."""
    try:
        caller = await asking(socket)
        found, lease = _running(caller, workload, replica, tenant)
        runtime = caller.yard.engine.get(found.runtime)
        session = await runtime.execute(lease.unit_name, tuple(command), terminal, columns, rows)
    except YardError as error:
        await _refuse(socket, error)
        return
    await socket.accept()
    caller.yard.terminals[lease.unit_name] += 1
    try:
        await _both(_from_session(socket, session), _to_session(socket, session))
        await socket.send_text(json.dumps({"exit_code": await session.wait()}))
        await socket.close(1000)
    except (WebSocketDisconnect, RuntimeError):
        pass  # the caller went away: the command goes with it
    finally:
        caller.yard.terminals[lease.unit_name] -= 1
        await session.close()


async def _from_session(socket: WebSocket, session: Session) -> None:
    while data := await session.read():
        await socket.send_bytes(data)


async def _to_session(socket: WebSocket, session: Session) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if (data := message.get("bytes")) is not None:
            if data:
                await session.write(data)
            continue
        await _control(json.loads(message.get("text") or "{}"), session)


async def _control(told: object, session: Session) -> None:
    """A text frame: the terminal's new size, or the end of standard input. Anything else is passed over."""
    if not isinstance(told, dict):
        return
    size = told.get("resize")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 0 < n <= 1000 for n in size):
        await session.resize(size[0], size[1])
    if told.get("eof") is True:
        await session.write(b"")


async def _both(main: Awaitable[None], side: Awaitable[None]) -> None:
    """Until `main` is done; `side` goes with it, and a failure of `side` ends both."""
    tasks = [asyncio.ensure_future(main), asyncio.ensure_future(side)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if tasks[0] not in done:
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@router.websocket("/workloads/{workload}/ports/{port}")
async def forward(
    socket: WebSocket,
    workload: str,
    port: int,
    replica: Annotated[int | None, Query(ge=0)] = None,
    tenant: str | None = None,
) -> None:
    """One TCP connection to a declared port of a running replica."""
    try:
        caller = await asking(socket)
        found, lease = _running(caller, workload, replica, tenant)
        observation = caller.yard.seen.get(lease.unit_name)
        address = observation.ports.get(port) if observation else None
        if address is None:
            declared = ", ".join(map(str, found.spec.ports)) or "--"
            raise YardError("port_not_declared", workload=found.name, port=port, ports=declared)
    except YardError as error:
        await _refuse(socket, error)
        return
    await socket.accept()
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError as failure:
        refusal = YardError(
            "engine_failed", runtime=found.runtime, reason=f"port {port}: {failure.strerror or failure}"
        )
        language = caller.language
        await socket.send_text(json.dumps({"problem": problem(refusal, language)}))
        await socket.close(1011)
        return
    try:
        await _both(_pump(reader.read, socket), _fill(socket, writer))
        await socket.close(1000)
    except (WebSocketDisconnect, ConnectionError, RuntimeError):
        pass  # either side went away
    finally:
        writer.close()


async def _pump(read: Callable[[int], Awaitable[bytes]], socket: WebSocket) -> None:
    while data := await read(CHUNK_BYTES):
        await socket.send_bytes(data)


async def _fill(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        if data:
            writer.write(data)
            await writer.drain()
        elif message.get("text"):
            writer.write_eof()
