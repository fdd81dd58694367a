"""The keys that tenants gave, in this process's memory and nowhere else."""

from __future__ import annotations

from threading import Lock

from gpuyard.engines.volumes.protocol import VolumeId


class HeldKeys:
    """Keys by volume. A key that is dropped is overwritten where it lay; copies that the interpreter made of it on its
    way in are freed like everything else."""

    def __init__(self) -> None:
        self._keys: dict[VolumeId, bytearray] = {}
        self._lock = Lock()

    def put(self, volume: VolumeId, key: str) -> None:
        """Holds a key, in place of another."""
        self.drop(volume)
        with self._lock:
            self._keys[volume] = bytearray(key.encode())

    def get(self, volume: VolumeId) -> str | None:
        """The key that is held, or None."""
        with self._lock:
            held = self._keys.get(volume)
            return None if held is None else held.decode()

    def __contains__(self, volume: VolumeId) -> bool:
        return volume in self._keys

    def volumes(self) -> frozenset[VolumeId]:
        """Whose keys are held."""
        with self._lock:
            return frozenset(self._keys)

    def drop(self, volume: VolumeId) -> None:
        """Forgets a key; one that is not held is no error."""
        with self._lock:
            held = self._keys.pop(volume, None)
            if held is not None:
                held[:] = bytes(len(held))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} keys)"
