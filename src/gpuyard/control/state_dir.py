"""The one directory that holds a yard's state, and the lock that keeps a second yard out of it."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gpuyard.model.errors import YardError


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a state directory: written once it answers at `address`."""

    pid: int
    address: str
    since: str


class StateDir:
    """A directory of mode 0700, locked for as long as this object lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise YardError("state_dir_unusable", path=str(path), reason=error.strerror) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            holder = read_holder(path)
            raise YardError(
                "state_dir_in_use",
                path=str(path),
                pid=holder.pid if holder else "--",
                since=holder.since if holder else "--",
                address=holder.address if holder else "--",
            ) from None

    @property
    def database(self) -> Path:
        return self.path / "yard.db"

    @property
    def secret_key(self) -> Path:
        return self.path / "secret.key"

    @property
    def units(self) -> Path:
        """Where runtimes keep units, disks and volumes."""
        return self.path / "engine"

    def announce(self, holder: Holder) -> None:
        """Says where this yard answers, for `gpuyard down` and for a second `gpuyard up`."""
        draft = self.path / "yard.json.new"
        draft.write_text(json.dumps(asdict(holder)))
        draft.rename(self.path / "yard.json")

    def release(self) -> None:
        """Lets go of the directory."""
        with suppress(FileNotFoundError):
            (self.path / "yard.json").unlink()
        os.close(self._lock)


def read_holder(path: Path) -> Holder | None:
    """Who said last that it holds the directory; it may be gone."""
    try:
        return Holder(**json.loads((path / "yard.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
