"""This terminal, attached to a command inside a workload."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from gpuyard.sdk.sockets import Exec, execute
from gpuyard.sdk.transport import Target

CHUNK_BYTES = 65536


def is_interactive() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


async def attach(target: Target, workload: str, command: list[str], replica: int | None, terminal: bool) -> int:
    """Runs the command with this process's input and output; its exit code.

    Raises YardError.
    """
    size = os.get_terminal_size() if terminal and sys.stdout.isatty() else os.terminal_size((80, 24))
    async with execute(target, workload, command, replica, terminal, size.columns, size.lines) as running:
        with _raw(terminal), _resizes(running, terminal):
            feeding = asyncio.create_task(_feed(running))
            try:
                while piece := await running.read():
                    sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        return running.exit_code if running.exit_code is not None else 1


async def _feed(running: Exec) -> None:
    """Standard input to the command; a file or a pipe ends, a terminal goes on."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    if not _can_be_watched(descriptor):
        while data := os.read(descriptor, CHUNK_BYTES):
            await running.write(data)
        await running.end_input()
        return
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            data = os.read(descriptor, CHUNK_BYTES)
            if not data:
                await running.end_input()
                return
            await running.write(data)
    finally:
        loop.remove_reader(descriptor)


def _can_be_watched(descriptor: int) -> bool:
    """Plain files cannot be waited for: they are always ready."""
    import stat

    return not stat.S_ISREG(os.fstat(descriptor).st_mode) and os.fstat(descriptor).st_rdev != os.makedev(1, 3)


@contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too; the terminal is put back whatever happens."""
    if not (terminal and sys.stdin.isatty()):
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _resizes(running: Exec, terminal: bool) -> Iterator[None]:
    if not (terminal and sys.stdout.isatty()):
        yield
        return
    loop = asyncio.get_running_loop()
    told: set[asyncio.Task[None]] = set()

    def resized() -> None:
        size = os.get_terminal_size()
        task = asyncio.ensure_future(running.resize(size.columns, size.lines))
        told.add(task)
        task.add_done_callback(told.discard)

    loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
