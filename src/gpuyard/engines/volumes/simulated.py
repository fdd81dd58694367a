"""Encrypted volumes of a simulated node: names, proofs of keys, and whether each is open. Nothing is stored in them."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from threading import RLock

from gpuyard.engines.volumes.protocol import GRACE_S, VolumeId
from gpuyard.model.errors import YardError


@dataclass(slots=True)
class _Held:
    salt: bytes
    proof: bytes
    has_key: bool = True
    open: bool = False
    given_at: float = -GRACE_S


class SimulatedVolumes:
    """Behaves as the real ones do, without a file system. `now_s` is any clock in seconds."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._volumes: dict[VolumeId, _Held] = {}
        self._lock = RLock()

    def why_not(self) -> str | None:
        """Nothing is missing."""
        return None

    def encrypted(self) -> frozenset[VolumeId]:
        """All that were made."""
        return frozenset(self._volumes)

    def plain(self, tenant_id: str) -> frozenset[str]:  # noqa: ARG002 - the protocol's
        """None: a simulated unit writes to nothing."""
        return frozenset()

    def create(self, volume: VolumeId, key: str) -> None:
        """A new name with a key."""
        with self._lock:
            if volume in self._volumes:
                raise YardError("volume_exists", volume=volume.name)
            salt = secrets.token_bytes(16)
            self._volumes[volume] = _Held(salt, _proof(salt, key), given_at=self._now_s())

    def unlock(self, volume: VolumeId, key: str) -> None:
        """Opens it where the key is right."""
        with self._lock:
            held = self._proven(volume, key)
            held.has_key, held.open, held.given_at = True, True, self._now_s()

    def change_key(self, volume: VolumeId, old: str, new: str) -> None:
        """Another key."""
        with self._lock:
            held = self._proven(volume, old)
            held.proof = _proof(held.salt, new)

    def lock(self, volume: VolumeId) -> None:
        """No key, and closed."""
        with self._lock:
            held = self._get(volume)
            held.has_key = held.open = False

    def remove(self, volume: VolumeId) -> None:
        """The name is free again."""
        with self._lock:
            self._volumes.pop(volume, None)

    def is_open(self, volume: VolumeId) -> bool:
        """Whether it was opened and not closed."""
        held = self._volumes.get(volume)
        return held is not None and held.open

    def has_key(self, volume: VolumeId) -> bool:
        """Whether its key was given and not forgotten."""
        held = self._volumes.get(volume)
        return held is not None and held.has_key

    def open_soon(self, volume: VolumeId) -> bool:
        """Opens it at once."""
        with self._lock:
            held = self._get(volume)
            if not held.open and not held.has_key:
                raise YardError("volume_locked", volume=volume.name)
            held.open = True
            return True

    def settle(self, in_use: Set[VolumeId], wanted: Set[VolumeId]) -> tuple[VolumeId, ...]:
        """Closes and forgets; nothing ever dies."""
        with self._lock:
            for volume, held in self._volumes.items():
                if volume in in_use:
                    held.given_at = -GRACE_S
                fresh = self._now_s() < held.given_at + GRACE_S
                if volume not in in_use and not fresh:
                    held.open = False
                    held.has_key &= volume in wanted
        return ()

    def leave(self, in_use: Set[VolumeId]) -> None:
        """Closes and forgets."""
        with self._lock:
            for volume, held in self._volumes.items():
                held.open &= volume in in_use
                held.has_key = False

    def _get(self, volume: VolumeId) -> _Held:
        if volume not in self._volumes:
            raise YardError("volume_not_found", volume=volume.name)
        return self._volumes[volume]

    def _proven(self, volume: VolumeId, key: str) -> _Held:
        held = self._get(volume)
        if not secrets.compare_digest(held.proof, _proof(held.salt, key)):
            raise YardError("volume_key_refused", volume=volume.name)
        return held


def _proof(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + key.encode()).digest()
