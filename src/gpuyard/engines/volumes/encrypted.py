"""Encrypted volumes of this machine: folders of ciphertext, and mounts that outlive the yard.

What is open is asked of the kernel and never remembered, so that a yard that was killed finds the mounts of units that
run on. Keys are remembered and never written, so that it does not find those.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
import time
from collections.abc import Set
from pathlib import Path
from typing import Final

from gpuyard.engines.process.disks import remove_tree, set_aside
from gpuyard.engines.volumes import gocryptfs
from gpuyard.engines.volumes.folders import DATA, VolumeFolders
from gpuyard.engines.volumes.gocryptfs import WrongKeyError
from gpuyard.engines.volumes.keys import HeldKeys
from gpuyard.engines.volumes.protocol import GRACE_S, VolumeId
from gpuyard.engines.volumes.showing import drop, hide, show
from gpuyard.model.errors import YardError

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2  # each proof of a key takes 64 MiB and a tenth of a second, on purpose


class EncryptedVolumes:
    """The volumes beside the folder `plain`. One object a yard: it alone opens and closes."""

    def __init__(self, plain: Path, look_every_s: float = 1.0) -> None:
        self._look_every_s = look_every_s
        self._folders = VolumeFolders(plain.absolute())
        self._keys = HeldKeys()
        self._locks = [threading.Lock() for _ in range(64)]  # a volume's is found by its hash
        self._guard = threading.Lock()
        self._proving = threading.BoundedSemaphore(_AT_ONCE)
        self._opening: set[VolumeId] = set()
        self._dead: set[VolumeId] = set()  # told of: their mounts stay, as they let nothing through
        self._failed: dict[VolumeId, YardError] = {}
        self._given_at: dict[VolumeId, float] = {}
        self._next_look = 0.0
        self._known = frozenset(self._folders.encrypted())
        for left in self._folders.left_overs():
            with contextlib.suppress(OSError):  # files of users that only exist in containers: the name is free
                remove_tree(left)
        self._holders = gocryptfs.holders(self._folders.sealed_root) if self._known else {}  # by ciphertext
        self._clear_aside()

    def why_not(self) -> str | None:
        """What is missing on this machine."""
        return gocryptfs.why_not()

    def encrypted(self) -> frozenset[VolumeId]:
        """All that have ciphertext."""
        return self._known

    def plain(self, tenant_id: str) -> frozenset[str]:
        """The folders of the tenant that are no ciphertext."""
        return self._folders.plain_of(tenant_id)

    def create(self, volume: VolumeId, key: str) -> None:
        """Makes it aside and then gives it its name, so that half a volume is never taken for one."""
        self._must_be_possible()
        with self._alone(volume):
            if volume in self._known or self._folders.plain(volume).exists():
                raise YardError("volume_exists", volume=volume.name)
            fresh = None
            try:
                fresh = self._folders.make_unfinished(volume, secrets.token_hex(8))
                with self._proving:
                    gocryptfs.initialise(fresh, key)
                fresh.chmod(0o777)  # an image's own user writes to it; the folder above is closed
                fresh.rename(self._folders.sealed(volume))
            except OSError as error:
                raise _failed(volume, error) from error
            finally:
                if fresh is not None and fresh.exists():
                    remove_tree(fresh)
            with self._guard:
                self._known |= {volume}
            self._hold(volume, key)

    def unlock(self, volume: VolumeId, key: str) -> None:
        """Opens it with that key; where it is open already, its configuration is written anew with that key."""
        self._must_be_possible()
        with self._alone(volume):
            self._must_exist(volume)
            if self.is_open(volume):
                self._change(volume, key, key)
            else:
                self._mount(volume, key)
            self._hold(volume, key)

    def change_key(self, volume: VolumeId, old: str, new: str) -> None:
        """gocryptfs writes the new configuration beside the old one and then in its place."""
        self._must_be_possible()
        with self._alone(volume):
            self._must_exist(volume)
            self._change(volume, old, new)
            if volume in self._keys:
                self._keys.put(volume, new)

    def lock(self, volume: VolumeId) -> None:
        """Takes the plain text off the tree at once."""
        with self._alone(volume):
            self._must_exist(volume)
            self._close(volume)
            self._forget(volume)

    def remove(self, volume: VolumeId) -> None:
        """Takes it away in one step, then deletes it."""
        with self._alone(volume):
            if volume in self._known:
                self._close(volume)
                self._forget(volume)
            folders = self._folders.sealed(volume), self._folders.plain(volume)
            with self._guard:
                self._known -= {volume}
            try:
                for folder in folders:
                    set_aside(folder, folder.parent)
            except PermissionError as error:
                reason = f"files of other users are left at {error.filename}: delete them as root"
                raise YardError("volume_failed", volume=volume.name, reason=reason) from error

    def is_open(self, volume: VolumeId) -> bool:
        """Whether the process behind its mount lives."""
        holder = self._holders.get(self._folders.sealed(volume))
        return holder is not None and holder.alive

    def has_key(self, volume: VolumeId) -> bool:
        """Whether its key was given and is held."""
        return volume in self._keys

    def open_soon(self, volume: VolumeId) -> bool:
        """Opens it in a thread: proving a key takes longer than whoever asks here may take."""
        if self.is_open(volume):
            return True
        key = self._keys.get(volume)
        if key is None:
            raise YardError("volume_locked", volume=volume.name)
        with self._guard:
            failed = self._failed.pop(volume, None)
            if failed is not None:
                raise failed
            if volume in self._opening:
                return False
            self._opening.add(volume)
        threading.Thread(target=self._open, args=(volume, key), name=f"open-{volume.name}", daemon=True).start()
        return False

    def settle(self, in_use: Set[VolumeId], wanted: Set[VolumeId]) -> tuple[VolumeId, ...]:
        """Asks the kernel for the mounts, once a second at most."""
        now = time.monotonic()
        for volume in in_use:  # it has got the key that it was given
            self._given_at.pop(volume, None)
        if not self._known or now < self._next_look:
            return ()
        self._next_look = now + self._look_every_s
        fresh = {volume for volume, at in self._given_at.items() if now < at + GRACE_S}
        for volume in self._keys.volumes() - wanted - in_use - fresh:
            self._forget(volume)
        died: list[VolumeId] = []
        for point in gocryptfs.mounted(self._folders.opened_root):
            volume = self._folders.volume_at(point)
            if volume is None or not (lock := self._alone(volume)).acquire(blocking=False):
                continue  # somebody is at it
            try:
                if not self.is_open(volume):
                    if volume not in in_use:
                        self._take_off(volume)
                    elif volume not in self._dead:
                        died.append(volume)
                elif volume not in in_use | fresh:
                    with contextlib.suppress(YardError):  # busy: a copy of files, or a program that is being killed
                        self._close(volume)
            finally:
                lock.release()
        self._dead |= set(died)
        for volume in self._dead & self._keys.volumes():
            with contextlib.suppress(YardError):
                self.open_soon(volume)
        return tuple(died)

    def leave(self, in_use: Set[VolumeId]) -> None:
        """What is in use stays open: units outlive the yard."""
        for volume in self._keys.volumes():
            self._forget(volume)
        if not self._known:
            return
        for point in gocryptfs.mounted(self._folders.opened_root):
            volume = self._folders.volume_at(point)
            if volume is not None and volume not in in_use:
                with self._alone(volume), contextlib.suppress(YardError):
                    self._close(volume)

    def _open(self, volume: VolumeId, key: str) -> None:
        try:
            with self._alone(volume):
                if not self.is_open(volume):
                    self._mount(volume, key)
        except YardError as error:
            if error.code == "volume_key_refused":  # it was changed behind the yard's back
                self._forget(volume)
            with self._guard:
                self._failed[volume] = error
        except Exception as error:
            log.exception("volume_not_opened")
            with self._guard:
                self._failed[volume] = YardError("volume_failed", volume=volume.name, reason=str(error))
        finally:
            with self._guard:
                self._opening.discard(volume)

    def _mount(self, volume: VolumeId, key: str) -> None:
        """Mounts it aside and then shows it."""
        point, shown = self._folders.aside(), self._folders.opened(volume)
        try:
            for folder in (self._folders.opened_root, shown.parent.parent, point.parent, point):
                folder.mkdir(mode=0o700, exist_ok=True)
            with self._proving:
                gocryptfs.mount(self._folders.sealed(volume), point, key)
            if show(point, shown):
                gocryptfs.unmount(point, at_once=True)  # one whose process died
        except WrongKeyError:
            raise YardError("volume_key_refused", volume=volume.name) from None
        except OSError as error:
            gocryptfs.unmount(point, at_once=True)
            raise _failed(volume, error) from error
        finally:
            drop(point)
        self._dead.discard(volume)
        self._holders.update(gocryptfs.holders(self._folders.sealed_root))

    def _change(self, volume: VolumeId, old: str, new: str) -> None:
        """Raises YardError `volume_key_refused` and what else stands in the way."""
        try:
            with self._proving:
                gocryptfs.change_key(self._folders.sealed(volume), old, new)
        except WrongKeyError:
            raise YardError("volume_key_refused", volume=volume.name) from None
        except OSError as error:
            raise _failed(volume, error) from error

    def _close(self, volume: VolumeId) -> None:
        """Raises YardError `volume_busy`."""
        shown = self._folders.opened(volume)
        if shown in gocryptfs.mounted(self._folders.opened_root) and not gocryptfs.unmount(shown):
            raise YardError("volume_busy", volume=volume.name)
        drop(shown)
        self._holders.pop(self._folders.sealed(volume), None)

    def _take_off(self, volume: VolumeId) -> None:
        """Ends a mount whoever uses it, and the process behind it."""
        aside = self._folders.aside()
        if hide(self._folders.opened(volume), aside):
            gocryptfs.unmount(aside, at_once=True)
            drop(aside)
        self._dead.discard(volume)
        holder = self._holders.pop(self._folders.sealed(volume), None)
        if holder is not None:
            holder.kill()

    def _clear_aside(self) -> None:
        """What a yard that was killed had not shown yet, or was about to take off."""
        for folder in self._folders.opened_root.glob(".*"):
            gocryptfs.unmount(folder / DATA, at_once=True)
            drop(folder / DATA)

    def _hold(self, volume: VolumeId, key: str) -> None:
        self._keys.put(volume, key)
        self._given_at[volume] = time.monotonic()
        with self._guard:
            self._failed.pop(volume, None)

    def _forget(self, volume: VolumeId) -> None:
        self._keys.drop(volume)
        self._given_at.pop(volume, None)

    def _must_exist(self, volume: VolumeId) -> None:
        if volume not in self._known:
            code = "volume_not_encrypted" if self._folders.plain(volume).exists() else "volume_not_found"
            raise YardError(code, volume=volume.name)

    def _must_be_possible(self) -> None:
        reason = self.why_not()
        if reason is not None:
            raise YardError("encryption_unavailable", reason=reason)

    def _alone(self, volume: VolumeId) -> threading.Lock:
        return self._locks[hash(volume) % len(self._locks)]


def _failed(volume: VolumeId, error: OSError) -> YardError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return YardError("storage_full", what=f"the volume {volume.name}")
    return YardError("volume_failed", volume=volume.name, reason=str(error.strerror or error))
