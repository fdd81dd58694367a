"""Secrets at rest: sealed with a key that lies in a file beside the database, never in it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from nacl.secret import SecretBox


class Sealer:
    """Seals and opens short secrets with libsodium's secret box (XSalsa20 and Poly1305)."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, secrets: Mapping[str, str]) -> dict[str, bytes]:
        """Each value sealed, as base64: it may be kept as text."""
        if not secrets:
            return {}
        box = self._box()
        return {name: base64.b64encode(box.encrypt(value.encode())) for name, value in secrets.items()}

    def open(self, sealed: Mapping[str, bytes]) -> dict[str, str]:
        """Each value as it was.

        Raises YardError `state_dir_unusable` where the key is not the one that sealed them.
        """
        if not sealed:
            return {}
        from nacl.exceptions import CryptoError

        box = self._box()
        try:
            return {name: box.decrypt(base64.b64decode(value)).decode() for name, value in sealed.items()}
        except (CryptoError, ValueError):
            raise self._wrong_key() from None

    def _box(self) -> SecretBox:
        from nacl.secret import SecretBox  # imported only when there is a secret: it costs start-up time

        key = _kept(self._key_file, lambda: os.urandom(SecretBox.KEY_SIZE))
        if len(key) != SecretBox.KEY_SIZE:
            raise self._wrong_key()
        return SecretBox(key)

    def _wrong_key(self) -> YardError:
        reason = "it is not the key that sealed the secrets"
        return YardError("state_dir_unusable", path=str(self._key_file), reason=reason)

    def file_of(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Another secret that lies beside the key: made once, with `make`, and the same from then on."""
        return _kept(self._key_file.with_name(name), make)


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    return path.read_bytes()
