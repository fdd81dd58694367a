"""A command beside the main one of a container: an exec, hijacked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpuyard.engines.container.api import EngineApi, EngineGone, EngineRefused
from gpuyard.engines.container.streams import frame, hijack

_POLL_S = 0.05
_RESIZE_SETTLES_S = 0.05


class ContainerSession:
    """One exec. `Session` of the runtime protocol."""

    def __init__(
        self, api: EngineApi, container: str, exec_id: str, terminal: bool, reader: Any, writer: asyncio.StreamWriter
    ) -> None:
        self._api = api
        self._container = container
        self._id = exec_id
        self._terminal = terminal
        self._reader: asyncio.StreamReader = reader
        self._writer = writer
        self._done = False

    @classmethod
    async def open(
        cls, api: EngineApi, container: str, command: tuple[str, ...], terminal: bool, columns: int, rows: int
    ) -> ContainerSession:
        """Starts the command. Raises EngineRefused (409 where the container does not run) or EngineGone."""
        body = {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": terminal,
            "Cmd": list(command),
        }
        made = await asyncio.to_thread(api.post, f"/containers/{quote(container)}/exec", body)
        # The size in Docker's words and in Podman's, so that the command never sees a terminal without one.
        size = {"ConsoleSize": [rows, columns], "h": rows, "w": columns} if terminal else {}
        start = {"Detach": False, "Tty": terminal, **size}
        reader, writer = await hijack(api.socket, f"/exec/{made['Id']}/start", start)
        session = cls(api, container, made["Id"], terminal, reader, writer)
        if terminal:
            await session.resize(columns, rows)
        return session

    async def read(self) -> bytes:
        """The next piece of output; b"" once the command has ended."""
        if self._terminal:
            try:
                return await self._reader.read(65536)
            except ConnectionError:
                return b""
        while (piece := await frame(self._reader)) is not None:
            if piece[1]:
                return piece[1]
        return b""

    async def write(self, data: bytes) -> None:
        """Bytes for its standard input; b"" closes it. A command that has ended takes nothing any more."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._terminal:
                self._writer.write(b"\x04")  # a terminal has no other end of input than its own sign for it
                await self._writer.drain()
            else:
                self._writer.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size; nothing where there is no terminal or it has ended."""
        if self._terminal:
            with contextlib.suppress(EngineRefused):
                await asyncio.to_thread(self._api.post, f"/exec/{self._id}/resize", h=str(rows), w=str(columns))
                # Podman answers when it has told its monitor, which then still has to tell the terminal.
                await asyncio.sleep(_RESIZE_SETTLES_S)

    async def wait(self) -> int:
        """The exit code."""
        while True:
            state = await asyncio.to_thread(self._state)
            if state is None:
                return 137  # its container is gone, and it with it
            if not state["Running"]:
                return int(state.get("ExitCode") or 0)
            await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Ends the command if it still runs. An engine has no call for that, so its process is signalled."""
        if self._done:
            return
        self._done = True
        self._writer.close()
        with contextlib.suppress(EngineGone):
            await asyncio.to_thread(self._end)

    def _state(self) -> dict[str, Any] | None:
        try:
            return self._api.get(f"/exec/{self._id}/json")
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise

    def _end(self) -> None:
        state = self._state()
        pid = int((state or {}).get("Pid") or 0)
        if state is None or not state["Running"] or pid <= 1:
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # Looked at again with the process held: the number cannot have gone to another one in between.
            again = self._state()
            if again is not None and again["Running"]:
                signal.pidfd_send_signal(handle, 0)
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)  # with what it started and did not put into another group
                else:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        except PermissionError:
            self._end_from_inside(pid)
        except ProcessLookupError:
            pass  # it ended by itself meanwhile
        finally:
            os.close(handle)

    def _end_from_inside(self, pid: int) -> None:
        """For a yard that may not signal what the engine started: the container's own `kill` does."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                inner = line.split()[-1]
                made = self._api.post(f"/containers/{quote(self._container)}/exec", {"Cmd": ["kill", "-9", inner]})
                self._api.post(f"/exec/{made['Id']}/start", {"Detach": True})
