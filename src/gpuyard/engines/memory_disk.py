"""The disk of a simulated unit: files in memory, in and out as tar streams."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO

from gpuyard.model.errors import YardError


class MemoryDisk:
    """Paths (relative, normal form) and their bytes; folders are those that a path goes through or that were made."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._folders: set[str] = {""}

    def pack(self, path: str) -> bytes:
        """A tar archive of a file or folder, named by the last part of its path.

        Raises YardError `file_not_found` or `invalid_path`.
        """
        wanted = clean_path(path)
        if wanted not in self._files and wanted not in self._folders:
            raise YardError("file_not_found", path=path)
        top = wanted.rpartition("/")[2] or "."
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for found in sorted(self._folders | self._files.keys()):
                if found != wanted and wanted and not found.startswith(f"{wanted}/"):
                    continue
                inner = found[len(wanted) :].strip("/")
                entry = tarfile.TarInfo(f"{top}/{inner}" if inner else top)
                if found in self._files:
                    entry.size = len(self._files[found])
                    tar.addfile(entry, io.BytesIO(self._files[found]))
                else:
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
        return packed.getvalue()

    def unpack(self, path: str, tar: BinaryIO) -> None:
        """Takes the files of an archive below a folder; all of them or none.

        Raises YardError `invalid_path`, or `invalid_request` where it is no archive.
        """
        try:
            self._take(clean_path(path), tar)
        except tarfile.TarError as error:
            raise YardError("invalid_request", reason="no_tar", detail=error) from error

    def _take(self, folder: str, tar: BinaryIO) -> None:
        files: dict[str, bytes] = {}
        folders: set[str] = {folder}
        with tarfile.open(fileobj=tar, mode="r|") as archive:
            for entry in archive:
                inside = clean_path(entry.name, absolute=False)
                target = f"{folder}/{inside}".strip("/")
                if entry.isdir():
                    folders.add(target)
                elif entry.isreg():
                    content = archive.extractfile(entry)
                    files[target] = content.read() if content else b""
                else:
                    raise YardError("invalid_path", path=entry.name)
        self._files.update(files)
        for name in [*files, *folders]:
            parts = name.split("/") if name in folders else name.split("/")[:-1]
            self._folders.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def clean_path(path: str, absolute: bool = True) -> str:
    """The path in normal form below the disk; an absolute one is taken below it too, where that is allowed.

    Raises YardError `invalid_path` for one that climbs.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in path or (path.startswith("/") and not absolute):
        raise YardError("invalid_path", path=path)
    return "/".join(parts)
