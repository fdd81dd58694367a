"""What a supervisor is given to run, and how a command is started inside the unit."""

# ruff: noqa: PTH110, PTH112 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import resource
import signal
import termios

from gpuyard.engines.process import groups
from gpuyard.engines.process.groups import Plan

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_libc = ctypes.CDLL(None, use_errno=True)


class Task:
    """One unit, as it goes through the pipe from the server to its supervisor: never to a disk or a command line."""

    __slots__ = ("command", "environment", "folder", "groups", "log_bytes", "mark", "memory_bytes")

    def __init__(
        self,
        command: tuple[str, ...],
        environment: dict[str, str],
        folder: str,
        groups: Plan,
        memory_bytes: int | None,
        log_bytes: int,
        mark: str,
    ) -> None:
        self.command = command
        self.environment = environment
        self.folder = folder
        self.groups = groups
        self.memory_bytes = memory_bytes  # the limit of each process, where no cgroup limits the unit
        self.log_bytes = log_bytes
        self.mark = mark

    def pack(self) -> bytes:
        """For the pipe; both ends are the same interpreter."""
        return marshal.dumps(tuple(getattr(self, name) for name in _TASK_ORDER))

    @classmethod
    def unpack(cls, data: bytes) -> Task:
        """Raises EOFError, ValueError or TypeError where the server was killed before it had sent everything."""
        return cls(*marshal.loads(data))  # noqa: S302 - from our own parent, through a pipe nobody else has

    @property
    def group_paths(self) -> list[str]:
        """The unit's cgroup folders."""
        return [path for path, _ in self.groups]


_TASK_ORDER = ("command", "environment", "folder", "groups", "memory_bytes", "log_bytes", "mark")


def become_subreaper() -> None:
    """From now on orphans of the unit become children of the calling process instead of init's."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Child:
    """A forked process that waits to be told to go on, so that its pid can be written down first."""

    def __init__(self, task: Task, command: tuple[str, ...], stdio: tuple[int, int, int], terminal: bool) -> None:
        gate_read, self._gate = os.pipe()
        self._failure, failure_write = os.pipe()
        self.command = command
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            os.close(self._failure)
            _run(task, command, stdio, terminal, gate_read, failure_write)
        os.close(gate_read)
        os.close(failure_write)

    def go(self) -> str | None:
        """Lets it run the command; returns why it cannot be run, or None once it runs."""
        os.write(self._gate, b"g")
        os.close(self._gate)
        told = b""
        while piece := os.read(self._failure, 4096):
            told += piece
        os.close(self._failure)
        return told.decode("utf-8", "replace") if told else None


def _run(
    task: Task, command: tuple[str, ...], stdio: tuple[int, int, int], terminal: bool, gate: int, failure: int
) -> None:
    """In the child: never returns."""
    try:
        # The kernel kills it when its supervisor dies; one that died before this line closes the gate unopened.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.read(gate, 1) != b"g":
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        groups.join(task.group_paths)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if task.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (task.memory_bytes, task.memory_bytes))
        for target, source in enumerate(_above_stdio(stdio)):
            os.dup2(source, target, inheritable=True)
        environment = task.environment
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            environment = {"TERM": "xterm-256color", **environment}
        os.umask(0o022)
        os.chdir(task.folder)
        os.execvpe(command[0], list(command), environment)  # noqa: S606 - running it is what we are for
    except OSError as error:
        os.write(failure, _explain(error, command, task.folder).encode())
    except BaseException as error:  # whatever it is, it must not run the supervisor's code on
        os.write(failure, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(127)


def _above_stdio(stdio: tuple[int, int, int]) -> list[int]:
    """Copies that no dup2 onto 0, 1 and 2 can overwrite."""
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]


def _explain(error: OSError, command: tuple[str, ...], folder: str) -> str:
    program = command[0]
    if not os.path.isdir(folder):
        return f"no such folder: {folder}"
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        # A script whose interpreter is missing fails like a missing file.
        if "/" in program and os.path.exists(program):
            return f"no such interpreter for: {program}"
        return f"no such file: {program}"
    if error.errno == errno.EACCES:
        return f"not an executable file: {program}"
    if error.errno == errno.ENOEXEC:
        return f"not a program: {program}"
    return f"{program}: {error.strerror or error}"


def exit_code_of(status: int) -> tuple[int, bool]:
    """The code of a wait status (128 + n for a signal n), and whether it was a signal."""
    code = os.waitstatus_to_exitcode(status)
    return (128 - code, True) if code < 0 else (code, False)
