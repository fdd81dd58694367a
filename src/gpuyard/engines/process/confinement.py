"""Opening paths below a disk without ever leaving it, whatever links a tenant has laid, even while we walk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gpuyard.model.errors import YardError

MAX_LINKS: Final = 40  # as the kernel's own limit
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def checked_name(name: str) -> str:
    """A name that is safe as one part of a path.

    Raises YardError `invalid_name`.
    """
    if _NAME.fullmatch(name) is None:
        raise YardError("invalid_name", value=name[:80])
    return name


class Confinement:
    """A disk and the volumes that are mounted in it. Absolute paths are taken below the disk."""

    def __init__(self, disk: Path, volumes: Sequence[Path] = ()) -> None:
        self._disk = disk
        self._roots = (disk, *volumes)

    @contextlib.contextmanager
    def opened(self, path: str, make_folders: bool = False) -> Iterator[int]:
        """An O_PATH descriptor of what the path leads to, links followed only inside the disk and its volumes.

        Every step is taken from the descriptor of the one before, so no link can be swapped in behind a check.
        Raises YardError `invalid_path` or `file_not_found`.
        """
        stack = [_root(self._disk, path)]
        try:
            self._walk(stack, path, make_folders)
            yield stack[-1]
        finally:
            for fd in stack:
                os.close(fd)

    def _walk(self, stack: list[int], path: str, make_folders: bool) -> None:
        if "\0" in path:
            raise YardError("invalid_path", path=path)
        parts = deque(path.split("/"))
        links = 0
        while parts:
            part = parts.popleft()
            if part in {"", "."}:
                continue
            if part == "..":
                if len(stack) == 1:
                    raise YardError("invalid_path", path=path)
                os.close(stack.pop())
                continue
            fd = _step(stack[-1], part, path, make_folders)
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                stack.append(fd)
                continue
            target = os.readlink("", dir_fd=fd)
            os.close(fd)
            links += 1
            if links > MAX_LINKS:
                raise YardError("invalid_path", path=path)
            if target.startswith("/"):
                target = self._enter_root(stack, target, path)
            parts.extendleft(reversed(target.split("/")))

    def _enter_root(self, stack: list[int], target: str, path: str) -> str:
        """Starts over from the disk or volume that an absolute link names; returns the rest of the link."""
        for root in self._roots:
            if target == str(root) or target.startswith(f"{root}/"):
                fresh = _root(root, path)
                while stack:
                    os.close(stack.pop())
                stack.append(fresh)
                return target[len(str(root)) + 1 :]
        raise YardError("invalid_path", path=path)


def _root(root: Path, path: str) -> int:
    try:
        return os.open(root, _STEP | os.O_DIRECTORY)
    except OSError as error:
        # An encrypted volume that is not open: there is nothing to mount on, or the process behind its mount is gone.
        if error.errno in (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED):
            raise YardError("file_not_found", path=path) from None
        raise


def _step(folder: int, part: str, path: str, make_folders: bool) -> int:
    if make_folders:
        with contextlib.suppress(FileExistsError):
            _mkdir(part, folder, path)
    try:
        return os.open(part, _STEP, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise YardError("file_not_found", path=path) from None
    except OSError as error:  # a part longer than a file system takes
        raise YardError("invalid_path", path=path) from error


def _mkdir(part: str, folder: int, path: str) -> None:
    try:
        os.mkdir(part, 0o755, dir_fd=folder)
    except NotADirectoryError:
        raise YardError("invalid_path", path=path) from None


def reopened(fd: int, flags: int) -> int:
    """A descriptor that can be read or listed, of the very object that an O_PATH descriptor names."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
