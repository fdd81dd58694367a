"""Ending units in the background: checkpoint, SIGTERM, and SIGKILL once the grace is over."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final
from urllib.parse import quote

from gpuyard.engines.container.api import EngineApi, EngineGone, EngineRefused
from gpuyard.engines.container.observing import RUNNING
from gpuyard.engines.container.records import UnitRecord
from gpuyard.model.times import Clock

_POLL_S: Final = 0.05
_AFTER_KILL_S: Final = 10.0


class Stopper:
    """Stops units of one engine, each at most once at a time."""

    def __init__(self, api: EngineApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._stopping: set[str] = set()

    def stop(self, record: UnitRecord, checkpoint: tuple[str, ...]) -> None:
        """Works towards the record's deadline. Nothing where that is already being done."""
        with self._lock:
            if record.name in self._stopping:
                return
            self._stopping.add(record.name)
        threading.Thread(target=self._end, args=(record, checkpoint), name=f"stop-{record.name}", daemon=True).start()

    def _end(self, record: UnitRecord, checkpoint: tuple[str, ...]) -> None:
        try:
            if checkpoint and self._left_s(record) > 0:
                self._checkpoint(record, checkpoint)
            if self._kill(record.name, "SIGTERM"):
                self._wait(record.name, self._left_s(record))
            if self._runs(record.name) and self._kill(record.name, "SIGKILL"):
                self._wait(record.name, _AFTER_KILL_S)
        except (EngineGone, EngineRefused):
            return  # where it still runs it will be asked for again, and goes on towards the same deadline
        finally:
            with self._lock:
                self._stopping.discard(record.name)

    def _left_s(self, record: UnitRecord) -> float:
        return ((record.stop_deadline_ns or 0) - self._clock.monotonic_ns()) / 1e9

    def _checkpoint(self, record: UnitRecord, command: tuple[str, ...]) -> None:
        """Runs it inside until it ends or the grace does. One that cannot be run does not keep the unit alive."""
        import asyncio

        from gpuyard.engines.container.session import ContainerSession

        async def run() -> None:
            session = await ContainerSession.open(self._api, record.name, command, False, 80, 24)
            try:
                async with asyncio.timeout(self._left_s(record)):
                    await session.write(b"")
                    while await session.read():
                        pass
            finally:
                await session.close()

        with contextlib.suppress(EngineRefused, TimeoutError):
            asyncio.run(run())

    def _kill(self, name: str, signal: str) -> bool:
        try:
            self._api.post(f"/containers/{quote(name)}/kill", signal=signal)
        except EngineRefused:
            return False  # it does not run, or not any more
        return True

    def _wait(self, name: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self._runs(name):
            time.sleep(_POLL_S)

    def _runs(self, name: str) -> bool:
        container = self._api.inspect(name)
        return container is not None and container["State"]["Status"] in RUNNING
