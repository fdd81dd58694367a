"""What the runtime itself remembers of each unit, beside what the engine knows.

The engine stamps wall time and forgets the boot; a record ties a unit to monotonic time and keeps units that never
became a container. It can always be made again from the container's labels. It never holds an environment.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpuyard.engines.runtime import Observation, UnitState


@dataclass(slots=True)
class UnitRecord:
    """One unit. All `_ns` belong to `boot_id`. `ended_ns` None with a reason: it never ran."""

    name: str
    disk: str
    tenant_id: str
    boot_id: str
    asked_ns: int
    started_ns: int | None = None
    seen_ns: int | None = None
    stop_asked: bool = False
    stop_deadline_ns: int | None = None
    reason: str | None = None  # set once it has ended
    detail: str | None = None
    exit_code: int | None = None
    ended_ns: int | None = None
    recorded: bool = False
    ports: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    share_ppm: int | None = None  # of the cards that it was started on
    pid: int | None = None  # of its first process, where its network is its own; else its traffic cannot be told apart

    def observation(self, detail: str | None = None) -> Observation:
        """How it stands as far as this record goes."""
        if self.reason is not None:
            state, proven_ns = UnitState.EXITED, self.ended_ns
        elif self.started_ns is not None:
            state, proven_ns = UnitState.RUNNING, self.seen_ns
        else:
            state, proven_ns = UnitState.CREATED, None
        return Observation(
            name=self.name,
            state=state,
            boot_id=self.boot_id,
            started_ns=self.started_ns,
            proven_ns=proven_ns,
            recorded=self.recorded,
            exit_code=self.exit_code,
            reason=self.reason,
            detail=self.detail or detail,
            ports={int(port): (host, number) for port, (host, number) in self.ports.items()},
            share_ppm=self.share_ppm,
        )


class Records:
    """The records of one yard, one file each, all in memory too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._records: dict[str, UnitRecord] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in folder.glob("*.json"):
            record = _read(file)
            if record is not None:
                self._records[record.name] = record

    def get(self, name: str) -> UnitRecord | None:
        """The record of that unit."""
        with self._lock:
            return self._records.get(name)

    def all(self) -> Mapping[str, UnitRecord]:
        """Every record by name, as of now."""
        with self._lock:
            return dict(self._records)

    def save(self, record: UnitRecord) -> None:
        """Writes it down. Raises OSError where the disk does not take it; the memory of this process then knows it
        all the same."""
        with self._lock:
            self._records[record.name] = record
            fresh = self._folder / f".{record.name}.new"
            fresh.write_text(json.dumps(asdict(record)))
            fresh.replace(self._folder / f"{record.name}.json")

    def note(self, record: UnitRecord) -> None:
        """Like `save`, for what can be found out again: a full disk must not stop anyone from looking."""
        try:
            self.save(record)
        except OSError:
            (self._folder / f".{record.name}.new").unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Forgets it. An unknown one is no error."""
        with self._lock:
            self._records.pop(name, None)
            (self._folder / f"{name}.json").unlink(missing_ok=True)


def _read(file: Path) -> UnitRecord | None:
    """A record, or None where the file was cut short by a power loss: the labels then make it again."""
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        values["ports"] = {port: (host, number) for port, (host, number) in values["ports"].items()}
        return UnitRecord(**values)
    except (ValueError, TypeError, KeyError):
        return None
