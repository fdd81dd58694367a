"""Commands run inside a unit beside its main one: the server's end of the door."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import termios
import time
from pathlib import Path
from typing import Final

from gpuyard.engines.process.exec_door import LENGTH, NAME
from gpuyard.model.errors import YardError

CHUNK: Final = 1 << 16
_SETTLE_S: Final = 0.05  # a terminal hands its last bytes over a moment after its program has ended
_DOOR_S: Final = 3.0
_ANSWER_S: Final = 10.0
_NUDGE_S: Final = 0.1
_LOST: Final = 137  # the supervisor was killed, and the command with it


class ExecSession:
    """One command. Belongs to the event loop it was opened on."""

    def __init__(self, connection: socket.socket, output: int, entry: int, terminal: bool) -> None:
        self._connection = connection
        self._output = output
        self._input: int | None = entry
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Task[int] = self._loop.create_task(self._await_exit())

    async def read(self) -> bytes:
        """Output as it comes; b"" once the command has ended and all of it was read."""
        while self._output >= 0:
            try:
                return os.read(self._output, CHUNK)
            except BlockingIOError:
                if not await self._more_to_come():
                    return b""
            except OSError:  # EIO: nobody has the terminal open any more
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        """To the command's standard input; b"" ends it."""
        if self._input is None:
            return
        if not data:
            self._end_input()
            return
        left = memoryview(data)
        while left and self._input is not None and not self._exit.done():
            try:
                left = left[os.write(self._input, left) :]
            except BlockingIOError:
                await self._until_ready(self._input, writing=True)
            except OSError:  # the command no longer reads
                return

    async def resize(self, columns: int, rows: int) -> None:
        """The kernel tells the command by SIGWINCH."""
        if self._terminal and self._output >= 0:
            set_size(self._output, columns, rows)

    async def wait(self) -> int:
        """The exit code."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Hangs up: the supervisor ends the command."""
        if not self._exit.done():
            self._exit.cancel()
        self._connection.close()
        for fd in {self._output, -1 if self._input is None else self._input} - {-1}:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)
        self._output = -1
        self._input = None

    async def _await_exit(self) -> int:
        told = b""
        while True:
            piece = await self._loop.sock_recv(self._connection, 4096)
            told += piece
            for line in told.split(b"\n")[:-1]:
                answer = json.loads(line)
                if "exit_code" in answer:
                    return int(answer["exit_code"])
            if not piece:
                return _LOST

    async def _more_to_come(self) -> bool:
        readable = asyncio.ensure_future(self._until_ready(self._output, writing=False))
        try:
            if self._exit.done():
                done, _ = await asyncio.wait({readable}, timeout=_SETTLE_S)
                return bool(done)
            await asyncio.wait({readable, self._exit}, return_when=asyncio.FIRST_COMPLETED)
            return True
        finally:
            readable.cancel()

    async def _until_ready(self, fd: int, writing: bool) -> None:
        ready = self._loop.create_future()
        add = self._loop.add_writer if writing else self._loop.add_reader
        remove = self._loop.remove_writer if writing else self._loop.remove_reader
        add(fd, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            remove(fd)

    def _end_input(self) -> None:
        entry, self._input = self._input, None
        if entry is None:
            return
        if self._terminal:
            self._input = entry  # a terminal has one descriptor for both ways: it is told the end, not closed
            os.write(entry, b"\x04")
        else:
            os.close(entry)


async def open_session(folder: Path, command: tuple[str, ...], terminal: bool, columns: int, rows: int) -> ExecSession:
    """Runs a command in the unit of that folder.

    Raises YardError `engine_failed` where the unit's supervisor does not answer.
    """
    output, entry, theirs = _terminal(columns, rows) if terminal else _pipes()
    try:
        connection = await asyncio.to_thread(_ask, folder, command, terminal, theirs)
    except OSError as error:
        for fd in {output, entry}:
            os.close(fd)
        raise YardError(
            "engine_failed", runtime="process", reason=f"its supervisor does not answer: {error}"
        ) from error
    finally:
        for fd in theirs:
            os.close(fd)
    return ExecSession(connection, output, entry, terminal)


def nudge(folder: Path) -> None:
    """Makes the supervisor look at its record now instead of within a second."""
    try:
        _connect(folder, _NUDGE_S).close()
    except OSError:  # it is only starting, or gone
        return


def set_size(terminal: int, columns: int, rows: int) -> None:
    """Raises OSError."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _ask(folder: Path, command: tuple[str, ...], terminal: bool, theirs: list[int]) -> socket.socket:
    connection = _connect_soon(folder)
    try:
        request = json.dumps({"command": command, "terminal": terminal}).encode()
        sent = socket.send_fds(connection, [LENGTH.pack(len(request))], theirs)
        if sent != LENGTH.size:
            raise OSError("the request was cut off")
        connection.sendall(request)
        told = b""
        while b"\n" not in told:
            piece = connection.recv(1)  # no further: what follows is the session's
            if not piece:
                raise OSError("it refused")
            told += piece
    except OSError:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


def _connect_soon(folder: Path) -> socket.socket:
    """A unit runs a moment before its door is open."""
    deadline = time.monotonic() + _DOOR_S
    while True:
        try:
            return _connect(folder, _ANSWER_S)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _connect(folder: Path, patience_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience_s)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/{NAME}")  # a socket's path may have 107 bytes only
    except OSError:
        connection.close()
        raise
    finally:
        os.close(fd)
    return connection


def _terminal(columns: int, rows: int) -> tuple[int, int, list[int]]:
    ours, theirs = os.openpty()
    set_size(ours, columns, rows)
    os.set_blocking(ours, False)
    return ours, ours, [theirs]


def _pipes() -> tuple[int, int, list[int]]:
    their_input, entry = os.pipe()
    output, their_output = os.pipe()
    os.set_blocking(entry, False)
    os.set_blocking(output, False)
    return output, entry, [their_input, their_output]
