"""Disks and volumes of the process runtime: plain folders, and volumes as links below the disk."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from gpuyard.engines.process.confinement import Confinement, checked_name
from gpuyard.engines.volumes.folders import VolumeFolders
from gpuyard.model.errors import YardError
from gpuyard.model.workloads import Mount

TEMPORARY = ".tmp"


class Disks:
    """The folders `disks/<disk>`, those of volumes, and `mounts/<disk>.json`, which remembers which volumes
    the yard itself linked into a disk: a link that a tenant laid opens no door."""

    def __init__(self, root: Path) -> None:
        self._disks = root / "disks"
        self._volumes = VolumeFolders(root / "volumes")
        self._mounts = root / "mounts"
        for folder in (self._disks, root / "volumes", self._mounts):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for gone in self._disks.glob(".gone-*"):
            remove_tree(gone)

    def path(self, disk: str) -> Path:
        """Where the disk is."""
        return self._disks / checked_name(disk)

    def names(self) -> frozenset[str]:
        """The disks that exist."""
        return frozenset(path.name for path in self._disks.iterdir() if not path.name.startswith("."))

    def confinement(self, disk: str) -> Confinement:
        """The way into a disk. Raises YardError `file_not_found` where it does not exist."""
        path = self.path(disk)
        if not path.is_dir():
            raise YardError("file_not_found", path="/")
        return Confinement(path, self._mounted(disk))

    def prepare(self, disk: str, tenant_id: str, mounts: Sequence[Mount], working_directory: str | None) -> Path:
        """Makes the disk, links the volumes and makes the working directory, whose path is returned.

        Raises YardError `invalid_path`, `mount_refused`, `volume_locked` or `volume_not_encrypted`, and OSError where
        the file system refuses.
        """
        path = self.path(disk)
        path.mkdir(mode=0o700, exist_ok=True)
        (path / TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        volumes = [self._volumes.of_unit(tenant_id, mount) for mount in mounts]
        for volume in volumes:
            volume.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remember(disk, volumes)
        confinement = Confinement(path, volumes)
        for mount, volume in zip(mounts, volumes, strict=True):
            _link(confinement, mount.path, volume)
        with confinement.opened(working_directory or "", make_folders=True) as fd:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise YardError("invalid_path", path=working_directory)
            return Path(f"/proc/self/fd/{fd}").readlink()

    def remove(self, disk: str) -> None:
        """Deletes the disk; its volumes stay."""
        path = self.path(disk)
        (self._mounts / f"{disk}.json").unlink(missing_ok=True)
        set_aside(path, self._disks)

    def _mounted(self, disk: str) -> list[Path]:
        try:
            listed = json.loads((self._mounts / f"{disk}.json").read_text())
        except FileNotFoundError:
            return []
        return [Path(volume) for volume in listed]

    def _remember(self, disk: str, volumes: Sequence[Path]) -> None:
        if volumes == self._mounted(disk):
            return
        fresh = self._mounts / f".{disk}.{secrets.token_hex(4)}"
        fresh.write_text(json.dumps([str(volume) for volume in volumes]))
        fresh.rename(self._mounts / f"{disk}.json")


def _link(confinement: Confinement, path: str, volume: Path) -> None:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise YardError("invalid_path", path=path)
    if not parts:
        raise YardError("mount_refused", path=path, reason="the disk itself is there")
    try:
        with confinement.opened("/".join(parts[:-1]), make_folders=True) as folder:
            _link_at(folder, parts[-1], path, volume)
    except NotADirectoryError:
        raise YardError("mount_refused", path=path, reason="a file of the disk is on the way") from None
    except YardError as error:
        raise YardError(error.code, **{**error.params, "path": path}) from None


def _link_at(folder: int, name: str, path: str, volume: Path) -> None:
    try:
        if os.readlink(name, dir_fd=folder) == str(volume):
            return
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: it is no link
            raise
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError:
            raise YardError("mount_refused", path=path, reason="files of the disk are there") from None
    os.symlink(volume, name, dir_fd=folder)


def set_aside(path: Path, folder: Path) -> None:
    """Takes a tree away in one step, then deletes it; what a crash leaves is deleted at the next start."""
    gone = folder / f".gone-{secrets.token_hex(8)}"
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    remove_tree(gone)


def remove_tree(path: Path) -> None:
    """Deletes a tree, also one whose folders its owner made unwritable."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o700)
        shutil.rmtree(path)
