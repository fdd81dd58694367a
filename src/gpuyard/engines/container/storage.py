"""Where disks and volumes of containers lie on this machine, and the way into them.

They are folders below one that only the yard may enter; each is open to every user, because an image's own user, who is
nobody here, must be able to write to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gpuyard.engines.container.creation import WORKSPACE, Bind, mount_target
from gpuyard.engines.process.confinement import Confinement, checked_name
from gpuyard.engines.process.disks import remove_tree
from gpuyard.engines.process.files import pack, unpack
from gpuyard.engines.runtime import Unit
from gpuyard.engines.volumes.folders import VolumeFolders
from gpuyard.model.errors import YardError


class Storage:
    """The disks and volumes below one root, and `mounts/<disk>.json`, which says what a disk's last unit saw where."""

    def __init__(self, root: Path, volumes: Path) -> None:
        self._disks = root / "disks"
        self._volumes = VolumeFolders(volumes)
        self._mounts = root / "mounts"
        self._staging = root / "staging"  # on the disks' file system, so that files can be moved over in one step
        for folder in (self._disks, volumes, self._mounts, self._staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for cut_off in self._staging.iterdir():
            remove_tree(cut_off)

    def disk(self, name: str) -> Path:
        """The folder of that disk, whether it exists or not. Raises YardError `invalid_name`."""
        return self._disks / checked_name(name)

    def disks(self) -> frozenset[str]:
        """The disks that exist."""
        return frozenset(entry.name for entry in self._disks.iterdir() if not entry.name.startswith("."))

    def binds(self, unit: Unit) -> list[Bind]:
        """Everything of this machine that the unit may write to, made where it is missing.

        Raises YardError `mount_refused`, `volume_locked`, `volume_not_encrypted` or `invalid_name`, or OSError where
        the machine's disk does not take it.
        """
        disk = self.disk(unit.disk)
        _open_folder(disk)
        _make_working_directory(disk, unit.working_directory)
        found = [Bind(str(disk), WORKSPACE)]
        for mount in unit.mounts:
            volume = self._volumes.of_unit(unit.tenant_id, mount)
            volume.parent.mkdir(exist_ok=True, mode=0o700)
            _open_folder(volume)
            found.append(Bind(str(volume), mount_target(mount.path), mount.read_only, shared=True))
        fresh = self._mounts / f".{unit.disk}.new"
        fresh.write_text(json.dumps({bind.target: bind.source for bind in found}))
        fresh.replace(self._mounts / f"{unit.disk}.json")
        return found

    def remove(self, name: str) -> None:
        """Deletes a disk; an unknown one is no error. It is moved away first, so that half a disk is never taken for a
        whole one. Its volumes stay.

        Raises YardError `engine_failed` where files in it belong to users whom the yard may not touch.
        """
        gone = self._disks / f".{name}.removed"
        if self.disk(name).exists():
            self.disk(name).replace(gone)
        (self._mounts / f"{name}.json").unlink(missing_ok=True)
        if not gone.exists():
            return
        try:
            remove_tree(gone)
        except PermissionError:
            _remove_as_container_root(gone)

    def read(self, disk: str, path: str) -> Iterator[bytes]:
        """A tar stream of a path as the unit sees it. Raises YardError `file_not_found` or `invalid_path`."""
        return pack(*self._inside(disk, path))

    def write(self, disk: str, path: str, tar: BinaryIO) -> None:
        """Unpacks a tar stream at a path as the unit sees it. Raises YardError `invalid_path` or `storage_full`."""
        confinement, inside = self._inside(disk, path)
        unpack(confinement, self._staging, inside, tar, disk)

    def _inside(self, disk: str, path: str) -> tuple[Confinement, str]:
        """Which folder of this machine a path leads into, and on from there. A path that is in no mount is taken below
        the disk."""
        if not self.disk(disk).is_dir():
            raise YardError("file_not_found", path=path)
        wanted = PurePosixPath(WORKSPACE) / path
        best: tuple[int, Path, str] | None = None
        for target, source in self._mounted(disk).items():
            if wanted.is_relative_to(target) and (best is None or len(target) > best[0]):
                best = (len(target), Path(source), str(wanted.relative_to(target)))
        if best is None:
            return Confinement(self.disk(disk)), path
        # A path with ".." is left whole, so that it is refused where it climbs out and not read as something else.
        return (Confinement(best[1]), best[2]) if ".." not in wanted.parts else (Confinement(self.disk(disk)), path)

    def _mounted(self, disk: str) -> dict[str, str]:
        try:
            return json.loads((self._mounts / f"{disk}.json").read_text())
        except (FileNotFoundError, ValueError):
            return {WORKSPACE: str(self.disk(disk))}


def _make_working_directory(disk: Path, wanted: str | None) -> None:
    """Makes it, as Podman wants it to be there. Where it leads off the disk, it is the image's business."""
    if not wanted or PurePosixPath(wanted).is_absolute():
        return
    confinement = Confinement(disk)
    with contextlib.suppress(YardError):
        try:
            with confinement.opened(wanted):
                return
        except YardError:
            with confinement.opened(wanted, make_folders=True) as fd:
                os.chmod(f"/proc/self/fd/{fd}", 0o777)  # noqa: PTH101, S103 - the disk is closed to other users above


def _open_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o777)  # the folder above it is closed


def _remove_as_container_root(folder: Path) -> None:
    """Rootless containers write as users that only exist inside the user namespace: one has to go there to delete."""
    podman = shutil.which("podman")
    if podman is not None:
        done = subprocess.run([podman, "unshare", "rm", "-rf", "--", str(folder)], capture_output=True, timeout=600)  # noqa: S603
        if done.returncode == 0:
            return
    reason = f"{folder} holds files of other users: run the yard as root, or delete it as root"
    raise YardError("engine_failed", runtime="container", reason=reason)
