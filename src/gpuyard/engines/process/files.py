"""Files of a disk, out and in as tar streams."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from gpuyard.engines.process.confinement import Confinement, reopened
from gpuyard.engines.process.disks import remove_tree
from gpuyard.model.errors import YardError

CHUNK: Final = 1 << 18
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(confinement: Confinement, path: str) -> Iterator[bytes]:
    """A tar stream of a file or folder, named by the last part of its path ("." for the whole disk). Links are packed
    as links; sockets, pipes and devices are left out.

    Raises YardError `file_not_found` or `invalid_path` before the first byte.
    """
    with confinement.opened(path) as fd:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise YardError("file_not_found", path=path)
    return _pack_stream(confinement, path)


def _pack_stream(confinement: Confinement, path: str) -> Iterator[bytes]:
    top = path.rstrip("/").rpartition("/")[2]
    with confinement.opened(path) as fd:
        found = os.fstat(fd)
        name = top if top not in {"", ".", ".."} else "."
        if stat.S_ISDIR(found.st_mode):
            folder = reopened(fd, os.O_RDONLY | os.O_DIRECTORY)
            yield _header(name, found, tarfile.DIRTYPE)
            yield from _pack_folder(folder, name)
        else:
            yield from _pack_file(reopened(fd, os.O_RDONLY | os.O_NONBLOCK), name)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _pack_folder(folder: int, name: str) -> Iterator[bytes]:
    try:
        for entry in sorted(os.listdir(folder)):
            inner = f"{name}/{entry}"
            try:
                found = os.stat(entry, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    yield _header(inner, found, tarfile.SYMTYPE, os.readlink(entry, dir_fd=folder))
                elif stat.S_ISDIR(found.st_mode):
                    deeper = os.open(entry, _FOLDER, dir_fd=folder)
                    yield _header(inner, found, tarfile.DIRTYPE)
                    yield from _pack_folder(deeper, inner)
                elif stat.S_ISREG(found.st_mode):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    yield from _pack_file(os.open(entry, flags, dir_fd=folder), inner)
            except (FileNotFoundError, NotADirectoryError):  # it went while we were packing
                continue
    finally:
        os.close(folder)


def _pack_file(fd: int, name: str) -> Iterator[bytes]:
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # swapped since it was looked at
            return
        yield _header(name, found, tarfile.REGTYPE)
        left = found.st_size
        while left:
            piece = os.read(fd, min(CHUNK, left))
            # One that shrinks while it is read is filled up with zeros: its length was already promised.
            piece = piece or bytes(min(CHUNK, left))
            left -= len(piece)
            yield piece
        if over := found.st_size % tarfile.BLOCKSIZE:
            yield bytes(tarfile.BLOCKSIZE - over)
    finally:
        os.close(fd)


def _header(name: str, found: os.stat_result, kind: bytes, link: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = link
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.mtime = int(found.st_mtime)
    entry.size = found.st_size if kind == tarfile.REGTYPE else 0
    return entry.tobuf(tarfile.PAX_FORMAT)


def unpack(confinement: Confinement, staging: Path, path: str, tar: BinaryIO, what: str) -> None:
    """Unpacks a tar stream into a folder of the disk, which is made where it is missing.

    Everything is unpacked beside the disk first, on the same file system, and then moved: an archive that is refused or
    does not fit changes nothing. Raises YardError `invalid_path`, `storage_full` or `invalid_request`.
    """
    room = staging / secrets.token_hex(8)
    try:
        room.mkdir(mode=0o700)
        fd = os.open(room, _FOLDER)
        try:
            _unpack_to(fd, tar)
            _move(confinement, fd, path)
        finally:
            os.close(fd)
    except tarfile.TarError as error:
        raise YardError("invalid_request", reason="no_tar", detail=error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise YardError("storage_full", what=what) from error
        raise YardError("invalid_path", path=path) from error
    finally:
        remove_tree(room)


def _unpack_to(room: int, tar: BinaryIO) -> None:
    with tarfile.open(fileobj=tar, mode="r|*") as archive:
        for entry in archive:
            parts = _parts(entry.name)
            if not parts:
                continue  # "." itself
            with _folder_of(room, parts[:-1]) as folder:
                _unpack_entry(archive, entry, folder, parts, room)


def _unpack_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: int, parts: list[str], room: int) -> None:
    name = parts[-1]
    if entry.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, entry.mode & 0o777 | 0o700, dir_fd=folder)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # a name that comes twice: the later one counts
    if entry.isreg():
        _unpack_file(archive, entry, folder, name)
    elif entry.issym():
        _check_link(entry, len(parts) - 1)
        os.symlink(entry.linkname, name, dir_fd=folder)
    elif entry.islnk():
        source = _parts(entry.linkname)
        with _folder_of(room, source[:-1]) as source_folder:
            os.link(source[-1], name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
    else:
        raise YardError("invalid_path", path=entry.name)  # a device or a pipe


def _unpack_file(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, entry.mode & 0o777, dir_fd=folder)
    with os.fdopen(fd, "wb") as out:
        content = archive.extractfile(entry)
        while content is not None and (piece := content.read(CHUNK)):
            out.write(piece)
        out.flush()
        os.utime(fd, (entry.mtime, entry.mtime))


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise YardError("invalid_path", path=name)
    return parts


def _check_link(entry: tarfile.TarInfo, depth: int) -> None:
    """A link may not climb out of the folder that the archive is unpacked into, whatever else is there."""
    for part in entry.linkname.split("/"):
        depth += -1 if part == ".." else int(part not in {"", "."})
        if depth < 0 or entry.linkname.startswith("/"):
            raise YardError("invalid_path", path=f"{entry.name} -> {entry.linkname}")


@contextlib.contextmanager
def _folder_of(room: int, parts: list[str]) -> Iterator[int]:
    """The folder in the staging room; made where missing, and never through a link that the archive brought."""
    fd = os.dup(room)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fd)
            deeper = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def _move(confinement: Confinement, source: int, path: str) -> None:
    with confinement.opened(path, make_folders=True) as target:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            raise YardError("invalid_path", path=path)
        for entry in os.listdir(source):
            kind = os.stat(entry, dir_fd=source, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind) and _exists(entry, target):
                deeper = os.open(entry, _FOLDER, dir_fd=source)
                try:
                    _move(confinement, deeper, f"{path}/{entry}")
                finally:
                    os.close(deeper)
            else:
                os.rename(entry, entry, src_dir_fd=source, dst_dir_fd=target)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
