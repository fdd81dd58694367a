"""Where volumes lie, and where a unit sees them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gpuyard.engines.process.confinement import checked_name
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.model.errors import YardError
from gpuyard.model.workloads import Mount

DATA: Final = "data"


class VolumeFolders:
    """Three folders side by side, each with `<tenant>/<volume>` below it: `volumes` holds the plain ones,
    `sealed-volumes` the ciphertext of encrypted ones, and in `open-volumes` their plain text is mounted while it is
    used, on a folder that comes with the mount and goes before it: what is to be encrypted cannot be written beside
    it, at no moment."""

    def __init__(self, plain: Path) -> None:
        self._plain = plain
        self.sealed_root = plain.with_name("sealed-volumes")
        self.opened_root = plain.with_name("open-volumes")

    def plain(self, volume: VolumeId) -> Path:
        """The folder of a plain volume, whether it exists or not. Raises YardError `invalid_name`."""
        return self._plain / checked_name(volume.tenant_id) / checked_name(volume.name)

    def sealed(self, volume: VolumeId) -> Path:
        """The folder of an encrypted one's ciphertext. Raises YardError `invalid_name`."""
        return self.sealed_root / checked_name(volume.tenant_id) / checked_name(volume.name)

    def opened(self, volume: VolumeId) -> Path:
        """Where its plain text is mounted. Raises YardError `invalid_name`."""
        return self.opened_root / checked_name(volume.tenant_id) / checked_name(volume.name) / DATA

    def aside(self) -> Path:
        """Where it is mounted before it is shown, and while it is taken off."""
        return self.opened_root / f".{secrets.token_hex(8)}" / DATA

    def volume_at(self, opened: Path) -> VolumeId | None:
        """The volume that is mounted there; None for what is aside."""
        first, *rest = opened.relative_to(self.opened_root).parts
        return None if first.startswith(".") else VolumeId(first, rest[0])

    def encrypted(self) -> Iterator[VolumeId]:
        """Every encrypted volume."""
        for folder in self.sealed_root.glob("*/[!.]*"):
            yield VolumeId(folder.parent.name, folder.name)

    def plain_of(self, tenant_id: str) -> frozenset[str]:
        """The names of a tenant's plain volumes."""
        return frozenset(folder.name for folder in (self._plain / checked_name(tenant_id)).glob("[!.]*"))

    def make_unfinished(self, volume: VolumeId, mark: str) -> Path:
        """A folder to make an encrypted volume in before it gets its name."""
        parent = self.sealed(volume).parent
        for folder in (self.sealed_root, parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = parent / f".new-{mark}"
        fresh.mkdir(mode=0o700)
        return fresh

    def left_overs(self) -> Iterator[Path]:
        """What was never finished, or only half deleted."""
        for root in (self.sealed_root, self._plain):
            yield from root.glob("*/.new-*")
            yield from root.glob("*/.gone-*")

    def of_unit(self, tenant_id: str, mount: Mount) -> Path:
        """The folder that a unit's mount leads to: a plain one may have to be made, an encrypted one is open.

        Raises YardError `volume_locked` for an encrypted one that is not open, `volume_not_encrypted` for one that is
        asked to be encrypted and is not, and `invalid_name`.
        """
        volume = VolumeId(tenant_id, mount.volume)
        if not self.sealed(volume).is_dir():
            if mount.encrypted:
                reason = f"the volume {mount.volume} is not encrypted"
                raise YardError("volume_not_encrypted", volume=mount.volume, path=mount.path, reason=reason)
            return self.plain(volume)
        opened = self.opened(volume)
        try:
            if opened.stat().st_dev != opened.parent.stat().st_dev:
                return opened
        except OSError:  # not mounted, or the process behind the mount is gone
            pass
        raise YardError("volume_locked", volume=mount.volume)
