"""The door through which the server runs commands inside a unit: a unix socket in the unit's private folder.

A request is a length, JSON and the file descriptors that become the command's standard input and output; the answer is
one line of JSON with its exit code. A connection that says nothing is a nudge: look whether an end was asked for. When
a connection is closed early, its command is ended.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
from collections.abc import Iterator

from gpuyard.engines.process.spawning import Child, Task

NAME = "door"
LENGTH = struct.Struct("<I")
MAX_REQUEST = 4 << 20
_PATIENCE_S = 2.0


class Door:
    """Commands that were let in. Lives inside the supervisor's one thread and never waits long."""

    def __init__(self, folder: str, task: Task) -> None:
        self._task = task
        self._open: dict[int, socket.socket] = {}  # pid of a command -> who asked for it
        self._hung_up: set[int] = set()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.chdir(folder)  # a socket's path may have 107 bytes only, so it is bound by its bare name
        self.listener.bind(NAME)
        self.listener.listen(16)
        self.listener.setblocking(False)

    def filenos(self) -> Iterator[int]:
        """What to wait on."""
        yield self.listener.fileno()
        for pid, connection in self._open.items():
            if pid not in self._hung_up:
                yield connection.fileno()

    def ready(self, fd: int) -> None:
        """Something happened on one of `filenos`."""
        if fd == self.listener.fileno():
            self._accept()
            return
        for pid, connection in self._open.items():
            if connection.fileno() == fd:
                self._hung_up.add(pid)  # nothing more is ever said on it, so it can only have been closed
                _signal_group(pid, signal.SIGHUP)

    def tick(self) -> None:
        """Commands whose caller hung up and that ignored it are killed."""
        for pid in self._hung_up:
            _signal_group(pid, signal.SIGKILL)

    def reaped(self, pid: int, exit_code: int) -> bool:
        """A child ended; whether it was one of the door's."""
        connection = self._open.pop(pid, None)
        if connection is None:
            return False
        self._hung_up.discard(pid)
        _answer(connection, {"exit_code": exit_code})
        return True

    def close(self) -> None:
        """The unit has ended."""
        for connection in self._open.values():
            _answer(connection, {"exit_code": 128 + signal.SIGKILL})
        self._open.clear()
        self.listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # gone again
            return
        connection.settimeout(_PATIENCE_S)
        fds: list[int] = []
        try:
            request = _receive(connection, fds)
            if request is None:
                connection.close()
                return
            self._run(connection, request, fds)
        except (OSError, ValueError, KeyError, TypeError):  # the server died in the middle of asking
            connection.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _run(self, connection: socket.socket, request: dict[str, object], fds: list[int]) -> None:
        command = tuple(str(part) for part in request["command"])  # type: ignore[attr-defined]
        terminal = bool(request["terminal"])
        stdio = (fds[0], fds[0], fds[0]) if terminal else (fds[0], fds[1], fds[1])
        child = Child(self._task, command, stdio, terminal)
        failure = child.go()
        if failure is not None:
            os.write(stdio[2], f"gpuyard: {failure}\r\n".encode())
        connection.sendall(json.dumps({"pid": child.pid}).encode() + b"\n")
        self._open[child.pid] = connection


def _receive(connection: socket.socket, fds: list[int]) -> dict[str, object] | None:
    """The request, with its descriptors put into `fds`; None for a nudge."""
    data = b""
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        piece, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(3 * 4), socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                passed = array.array("i")
                passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
                fds.extend(passed)
        if not piece:
            return None
        data += piece
        if len(data) > MAX_REQUEST:
            raise ValueError("the request is too long")
    return json.loads(data[LENGTH.size :])


def _answer(connection: socket.socket, answer: dict[str, int]) -> None:
    try:
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:  # who asked is gone
        pass
    finally:
        connection.close()


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:  # it ended meanwhile; its pid is ours until it is reaped
        return
