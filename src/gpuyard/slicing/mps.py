"""The cards of this machine that NVIDIA's Multi-Process Service (MPS) holds to their slices.

A card is under MPS while it has slices that say so: then it has a control daemon of its own, and its compute mode lets
nobody in but the clients of that daemon's server. Everything here may be cut short and done again: what a card was
like before is written down first, and put back last.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.model.said import SaidError
from gpuyard.slicing.compute_mode import CardMode, mode_of, set_mode
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.mps_daemon import SHARED_MEMORY, Ceiling, MpsDaemon
from gpuyard.slicing.mps_partitions import Partitions

log = logging.getLogger(__name__)

_BEFORE: Final = "mode-before"
_CARD: Final = "card"
_PARTITIONED: Final = "partitioned"
_RETRY_S: Final = 5.0  # whoever waits for a card asks more often, and each try takes its time


@dataclass(frozen=True, slots=True)
class Restart:
    """A daemon that was found dead. `reason` None: it was started again; else why it could not be, and the card stays
    shut."""

    card_uuid: str
    reason: str | None


class MpsCards:
    """Below one folder, `<root>/<beginning of the card's UUID>/` for each card that is under MPS now."""

    def __init__(self, root: Path, driver: Driver, program: Path) -> None:
        self._root = root
        self._driver = driver
        self._program = program
        # Whether clients are containers alone: they then have a /dev/shm of their card's, and not the machine's.
        self.contained = False
        # Where a daemon is to be started for static partitions. One that runs stays as it was started.
        self.partition: set[str] = set()
        self._limits: dict[str, Ceiling] = {}
        self._shut: dict[str, str] = {}  # cards whose daemon could not be started, and why
        self._retry_at: dict[str, float] = {}  # and when that is tried again

    def pipes(self, card_uuid: str) -> Path:
        """The card's pipe directory."""
        return self._daemon(card_uuid).pipes

    def shared_memory(self, card_uuid: str) -> Path:
        """What the card's clients have for /dev/shm."""
        return self._daemon(card_uuid).shared_memory or SHARED_MEMORY

    def held(self) -> frozenset[str]:
        """The cards that are under MPS, whether their daemon lives or not."""
        return frozenset(self._cards())

    def daemon(self, card_uuid: str) -> MpsDaemon:
        """The card's daemon, running or not."""
        return self._daemon(card_uuid)

    def hold(self, card_uuid: str, ceiling: Ceiling) -> None:
        """Puts the card under MPS, or makes sure that it is, with no client allowed more than that. Raises OSError."""
        daemon = self._daemon(card_uuid)
        folder = daemon.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not (folder / _BEFORE).exists():
            (folder / _CARD).write_text(card_uuid)
            partial = folder / f"{_BEFORE}.new"
            partial.write_text(str(mode_of(self._driver, card_uuid).value))
            if card_uuid in self.partition:
                (folder / _PARTITIONED).touch()
            partial.replace(folder / _BEFORE)
            daemon = self._daemon(card_uuid)
            self._shut[card_uuid] = ""  # not open to clients yet
        if daemon.pid() is not None and self._limits.get(card_uuid) == ceiling and card_uuid not in self._shut:
            return
        if self._shut.get(card_uuid) and time.monotonic() < self._retry_at.get(card_uuid, 0):
            raise OSError(self._shut[card_uuid])
        try:
            # Exclusive before there is a server: whoever has the card open now is found out by the server's refusal.
            set_mode(self._driver, card_uuid, CardMode.EXCLUSIVE_PROCESS)
            daemon.start()
            daemon.limit(ceiling)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._limits.pop(card_uuid, None)
            self._shut[card_uuid] = str(error)
            self._retry_at[card_uuid] = time.monotonic() + _RETRY_S
            with suppress(OSError):  # exclusive, and nobody there to serve: the first program would have all of it
                set_mode(self._driver, card_uuid, CardMode.PROHIBITED)
            if isinstance(error, SaidError):
                raise
            raise OSError(str(error)) from error
        self._shut.pop(card_uuid, None)
        self._retry_at.pop(card_uuid, None)
        self._limits[card_uuid] = ceiling

    def partitions(self, card_uuid: str) -> Partitions | None:
        """The static partitions of a card under MPS; None where it has none."""
        daemon = self._daemon(card_uuid)
        return Partitions(daemon) if daemon.partitioned else None

    def client(
        self, unit: str, card_uuid: str, ceiling: Ceiling, pipes: Path | None = None
    ) -> tuple[dict[str, str], int | None]:
        """The variables of a unit's programs on the card, and how many multiprocessors are its own there: None where it
        has a share of them. `pipes`: where it sees the pipe directory. Raises OSError where it gets no partition."""
        variables = ceiling.variables(str(pipes or self.pipes(card_uuid)))
        partitions = self.partitions(card_uuid)
        if partitions is None:
            return variables, None
        own = partitions.of_unit(unit, ceiling.compute_ppm)
        return variables | partitions.variable(own), own.multiprocessors

    def is_server(self, pid: int) -> bool:
        """Whether the process is the server of a card under MPS here."""
        with suppress(OSError, subprocess.SubprocessError):
            return any(pid in self.daemon(card).servers() for card in self.held())
        return False

    def runs_divided(self, card_uuid: str) -> bool:
        """Whether the card's daemon runs, and holds its slices to static partitions."""
        daemon = self._daemon(card_uuid)
        return daemon.partitioned and daemon.pid() is not None

    def is_divided(self, card_uuid: str) -> bool:
        """Whether the card has static partitions while it is under MPS, or will have."""
        return card_uuid in self.partition or self._daemon(card_uuid).partitioned

    def let_go(self, card_uuid: str) -> None:
        """Ends the card's daemon and puts its compute mode back. Raises OSError where that cannot be done now."""
        daemon = self._daemon(card_uuid)
        self._limits.pop(card_uuid, None)
        self._shut.pop(card_uuid, None)
        self._retry_at.pop(card_uuid, None)
        if not daemon.folder.exists():
            return
        daemon.quit()
        with suppress(FileNotFoundError, ValueError):
            set_mode(self._driver, card_uuid, CardMode(int((daemon.folder / _BEFORE).read_text())))
        if daemon.shared_memory is not None:
            shutil.rmtree(daemon.shared_memory, ignore_errors=True)
        shutil.rmtree(daemon.folder, ignore_errors=True)

    def shut_again(self, modes: Mapping[str, int | None], ceilings: Collection[str]) -> None:
        """Where somebody else opened a card that has slices under MPS to all, shuts it to all but its clients."""
        for card in self.held().intersection(ceilings) - set(self._shut):
            if modes.get(card) in (CardMode.DEFAULT, CardMode.EXCLUSIVE_THREAD):
                log.warning("mps_card_was_opened", extra={"card": card})
                with suppress(OSError):
                    set_mode(self._driver, card, CardMode.EXCLUSIVE_PROCESS)

    def watch(self, card_uuid: str, ceiling: Ceiling | None, units: Collection[str]) -> tuple[Restart, ...]:
        """Looks after one card: ends what no slice needs, and starts again what died. `ceiling` None: the card has no
        slices under MPS. `units`: those that have slices."""
        try:
            if ceiling is None:
                self.let_go(card_uuid)
            elif card_uuid in self._shut or self._daemon(card_uuid).pid() is None:
                return tuple(self._revive(card_uuid, ceiling))
            else:
                self.hold(card_uuid, ceiling)
                if (partitions := self.partitions(card_uuid)) is not None:
                    partitions.end_all_but(units)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("mps_card", extra={"card": card_uuid, "reason": str(error)})
        return ()

    def _revive(self, card_uuid: str, ceiling: Ceiling) -> Iterator[Restart]:
        """Nobody gets in until the daemon is back. Where a server outlives its daemon, the card stays shut to others
        until its programs have ended: they are held to their limits as before, and are not ended for it."""
        before = self._shut.get(card_uuid)
        self._shut[card_uuid] = before or "its MPS control daemon died"
        try:
            if before is None:
                set_mode(self._driver, card_uuid, CardMode.PROHIBITED)
            self.hold(card_uuid, ceiling)
        except OSError as error:
            if before != str(error):  # told once
                yield Restart(card_uuid, str(error))
            return
        yield Restart(card_uuid, None)

    def _cards(self) -> Iterator[str]:
        for note in self._root.glob(f"*/{_CARD}"):
            with suppress(OSError):
                yield note.read_text()

    def _daemon(self, card_uuid: str) -> MpsDaemon:
        short = card_uuid.removeprefix("GPU-").replace("-", "")[:12]  # the path of a socket may only be short
        folder = self._root / short
        name = f"gpuyard-mps-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
        own = SHARED_MEMORY / name if self.contained else None
        partitioned = (folder / _PARTITIONED).exists()
        return MpsDaemon(self._program, folder, card_uuid, self._driver.bare(), own, partitioned)
