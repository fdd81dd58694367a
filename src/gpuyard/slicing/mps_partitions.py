"""Static partitions of a card under MPS: a unit's multiprocessors are its own, and nobody lends them out.

The card's daemon was started for them (`-S`, CUDA 13.1 and newer) and knows them by names that only it gives; a note
says which unit has which. https://docs.nvidia.com/deploy/mps/latest/common-tasks.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.slicing.mps_daemon import MpsDaemon

PARTITION: Final = "CUDA_MPS_SM_PARTITION"
# `sm_partition add` answers with the name alone, or (newer) in a sentence around it.
_NAME: Final = re.compile(r"GPU-[0-9a-fA-F-]+/(\S+)")


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a card's multiprocessors. `name` as the daemon lists it."""

    name: str
    chunks: int
    multiprocessors: int


@dataclass(frozen=True, slots=True)
class Division:
    """How a card is divided now: chunks nobody has, and the partitions."""

    free_chunks: int
    partitions: tuple[Partition, ...]

    @property
    def chunks(self) -> int:
        """All of the card."""
        return self.free_chunks + sum(each.chunks for each in self.partitions)


def parse_division(table: str) -> Division:
    """What `lspart` printed for the one card of a daemon: a row for the card (`-` for a name), and one for each
    partition, in columns (card, name, free and used chunks, free and used multiprocessors, clients).

    Raises ValueError for what is no such table.
    """
    free: int | None = None
    found: list[Partition] = []
    for row in (line.split() for line in table.splitlines()):
        if len(row) < 7 or not row[0].startswith("GPU-"):  # a heading
            continue
        if row[1] == "-":
            free = int(row[2])
        else:
            found.append(Partition(row[1], int(row[3]), int(row[5])))
    if free is None:
        raise ValueError(f"lspart lists no card: {table.strip()[:120]!r}")
    return Division(free, tuple(found))


class Partitions:
    """Those of one card's daemon; a note for each unit lies in its folder."""

    def __init__(self, daemon: MpsDaemon) -> None:
        self._daemon = daemon
        self._notes = daemon.folder / "partitions"

    def division(self) -> Division:
        """As the daemon tells it now. Raises OSError."""
        try:
            return parse_division(self._daemon.ask("lspart"))
        except ValueError as error:
            raise OSError(str(error)) from error

    def of_unit(self, unit: str, compute_ppm: int) -> Partition:
        """The unit's partition, made where it has none: whole chunks, no more than its share and one at least. Raises
        OSError where the daemon gives none."""
        division = self.division()
        note = self._notes / unit
        with suppress(OSError):
            known = note.read_text()
            for each in division.partitions:
                if each.name == known:
                    return each
        chunks = max(1, division.chunks * compute_ppm // SHARE_WHOLE_PPM)
        answer = self._daemon.ask(f"sm_partition add {self._daemon.card_uuid} {chunks}")
        named = _NAME.search(answer)
        if named is None:
            raise OSError(answer.strip()[-200:] or "the MPS control daemon makes no partition")
        self._notes.mkdir(exist_ok=True, mode=0o755)
        note.write_text(named[1])  # cut short before this line, it is one of nobody, and removed
        for each in self.division().partitions:
            if each.name == named[1]:
                return each
        raise OSError(f"the MPS control daemon made the partition {named[1]} and does not list it")

    def variable(self, partition: Partition) -> dict[str, str]:
        """What a program in it is given."""
        return {PARTITION: f"{self._daemon.card_uuid}/{partition.name}"}

    def end_all_but(self, units: Collection[str]) -> None:
        """Removes those of units that are none any more. One that is still in use stays until the next time. Raises
        OSError where the daemon does not answer."""
        if all(note.name in units for note in self._noted()):
            return  # asked every second, and the daemon only where something has changed
        kept = {note.read_text() for note in self._noted() if note.name in units}
        for each in self.division().partitions:
            if each.name not in kept:
                self._daemon.ask(f"sm_partition rm {self._daemon.card_uuid} {each.name}")
        for note in self._noted():
            if note.name not in units:
                note.unlink(missing_ok=True)

    def _noted(self) -> Iterator[Path]:
        return iter(sorted(self._notes.iterdir()) if self._notes.exists() else ())
