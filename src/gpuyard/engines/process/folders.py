"""The folder of a unit: its record, its log, and the little about it that never changes and is no secret."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.engines.process import records
from gpuyard.engines.process.confinement import checked_name
from gpuyard.engines.process.disks import remove_tree, set_aside
from gpuyard.engines.process.processes import start_ticks

RECORD: Final = "record"
LOG: Final = "log"
COMPLAINT: Final = "supervisor.err"  # what a supervisor says when it cannot even begin
_FACTS: Final = "facts.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is fixed when a unit's folder is made. `ports`: declared -> on the host. `groups`: its cgroup folders.
    `share_ppm`: of the cards that it is started on; None in folders of before that was written down."""

    disk: str
    ports: Mapping[int, int]
    groups: tuple[str, ...]
    share_ppm: int | None = None


class UnitFolders:
    """The folders `units/<name>`. One appears complete or not at all, and goes the same way."""

    def __init__(self, root: Path) -> None:
        self._units = root / "units"
        self._units.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._facts: dict[str, Facts] = {}
        self._clean_up()

    def path(self, name: str) -> Path:
        """Where the unit's folder is or would be."""
        return self._units / checked_name(name)

    def names(self) -> Iterator[str]:
        """The units that have a folder."""
        return (name for name in os.listdir(self._units) if not name.startswith("."))  # noqa: PTH208 - asked for often

    def exists(self, name: str) -> bool:
        """Whether the unit has a folder."""
        return self.path(name).is_dir()

    def create(self, name: str, facts: Facts) -> None:
        """Makes the folder, unless another one was quicker. Raises OSError, having left nothing behind."""
        own = os.getpid()
        fresh = self._units / f".new-{own}-{start_ticks(own)}-{secrets.token_hex(4)}"
        try:
            fresh.mkdir(mode=0o700)
            records.create(str(fresh / RECORD))
            content = {"disk": facts.disk, "ports": list(facts.ports.items()), "groups": facts.groups}
            content["share_ppm"] = facts.share_ppm
            (fresh / _FACTS).write_text(json.dumps(content))
            fresh.rename(self.path(name))  # refused where there is a folder that is not empty
        except OSError:
            remove_tree(fresh)
            if not self.exists(name):
                raise

    def facts(self, name: str) -> Facts | None:
        """None where there is no such unit."""
        if name not in self._facts:
            try:
                content = json.loads((self.path(name) / _FACTS).read_text())
            except FileNotFoundError:
                return None
            ports, groups = dict(content["ports"]), tuple(content["groups"])
            self._facts[name] = Facts(content["disk"], ports, groups, content.get("share_ppm"))
        return self._facts[name]

    def record(self, name: str) -> records.Record | None:
        """The unit's record, opened; None where there is no such unit."""
        try:
            return records.Record(str(self.path(name) / RECORD))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Drops the folder."""
        self._facts.pop(name, None)
        set_aside(self.path(name), self._units)

    def _clean_up(self) -> None:
        """Deletes what a server that was killed left half made or half deleted."""
        for folder in self._units.glob(".gone-*"):
            remove_tree(folder)
        for folder in self._units.glob(".new-*"):
            _, pid, ticks, _ = folder.name.split("-")
            if start_ticks(int(pid)) != int(ticks):
                remove_tree(folder)
