"""The protocol of encrypted volumes: who makes them, opens them with their tenant's key, and closes them again."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final, Protocol

GRACE_S: Final = 60.0  # how long a key that was just given waits for the first unit that uses it


@dataclass(frozen=True, slots=True, order=True)
class VolumeId:
    """A volume of a tenant. Names are unique among a tenant's volumes, encrypted or not."""

    tenant_id: str
    name: str


class Volumes(Protocol):
    """Encrypted volumes of this node. Keys are one line of text; they are held in memory and written nowhere.

    Every method may be called from any thread.
    """

    def why_not(self) -> str | None:
        """Why no volume can be encrypted here, and what to install; None where they can be."""
        ...

    def encrypted(self) -> frozenset[VolumeId]:
        """All that exist."""
        ...

    def plain(self, tenant_id: str) -> frozenset[str]:
        """The tenant's volumes that are not encrypted."""
        ...

    def create(self, volume: VolumeId, key: str) -> None:
        """Makes an empty one and holds its key.

        Raises YardError `encryption_unavailable`, `volume_exists`, `storage_full` or `volume_failed`.
        """
        ...

    def unlock(self, volume: VolumeId, key: str) -> None:
        """Proves the key by opening the volume, and holds it.

        Raises YardError `volume_not_found`, `volume_key_refused`, `encryption_unavailable` or `volume_failed`.
        """
        ...

    def change_key(self, volume: VolumeId, old: str, new: str) -> None:
        """From now on the new key opens it and the old one does not. Data are not encrypted anew.

        Raises as `unlock`, and `storage_full`.
        """
        ...

    def lock(self, volume: VolumeId) -> None:
        """Forgets the key and closes the volume.

        Raises YardError `volume_not_found`, or `volume_busy` where something still has files of it open.
        """
        ...

    def remove(self, volume: VolumeId) -> None:
        """Deletes it, encrypted or not, and what it holds; an unknown one is no error.

        Raises YardError `volume_busy`.
        """
        ...

    def is_open(self, volume: VolumeId) -> bool:
        """Whether units may use it now."""
        ...

    def has_key(self, volume: VolumeId) -> bool:
        """Whether it could be opened without asking its tenant."""
        ...

    def open_soon(self, volume: VolumeId) -> bool:
        """Whether it is open; where it is not, opening it is begun and this is to be asked again.

        Raises YardError `volume_locked` without a key, or what kept the last try from opening it.
        """
        ...

    def settle(self, in_use: Set[VolumeId], wanted: Set[VolumeId]) -> tuple[VolumeId, ...]:
        """Makes the mounts what they should be: closes what is not in use, forgets the keys of what is not wanted
        either, and opens anew what died while it was in use. Returns those that had died since it was last asked."""
        ...

    def leave(self, in_use: Set[VolumeId]) -> None:
        """The yard ends: closes what is not in use, and forgets every key."""
        ...
