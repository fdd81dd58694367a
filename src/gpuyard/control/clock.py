"""Yard time: the wall clock as it was when the yard (re)started in this boot, moved on by the monotonic clock.

A step of the wall clock while the yard runs moves nothing: durations are what the monotonic clock says. The anchor is
kept in the store, so that a restart within one boot continues the same time base. When the wall clock has been found to
be ahead by more than a second at a restart, yard time jumps forward to it; it never goes back.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection

from gpuyard.store import meta
from gpuyard.store.database import Store

STEP_US = 1_000_000
_ANCHOR = "clock_anchor"  # "<boot id> <yard µs at monotonic zero>"
_LATEST = "clock_latest_us"


def read_boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class YardClock:
    """The real `Clock`."""

    def __init__(self, boot_id: str, zero_us: int) -> None:
        self._boot_id = boot_id
        self._zero_us = zero_us

    @classmethod
    def open(cls, store: Store) -> YardClock:
        """The clock that continues where the store says it stood."""
        boot_id = read_boot_id()
        monotonic_us = time.monotonic_ns() // 1000
        wall_us = time.time_ns() // 1000
        with store.write() as c:
            latest_us = int(meta.get(c, _LATEST) or 0)
            known_boot, _, known_zero = (meta.get(c, _ANCHOR) or "").partition(" ")
            zero_us = max(wall_us, latest_us) - monotonic_us
            if known_boot == boot_id:
                kept_us = int(known_zero)
                if wall_us - (kept_us + monotonic_us) <= STEP_US:
                    zero_us = kept_us
            meta.put(c, _ANCHOR, f"{boot_id} {zero_us}")
        return cls(boot_id, zero_us)

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def now_us(self) -> int:
        return self._zero_us + time.monotonic_ns() // 1000

    def offset_us(self) -> int:
        """How far the wall clock is ahead of yard time now; beyond a second it was stepped."""
        return time.time_ns() // 1000 - self.now_us()


def remember_latest(c: Connection, now_us: int) -> None:
    """Writes down how far yard time has come, so that a later boot with a wrong clock cannot go behind it."""
    meta.put(c, _LATEST, str(now_us))


def latest(c: Connection) -> int | None:
    """How far it had come when that was last written down; None where it never was."""
    found = meta.get(c, _LATEST)
    return None if found is None else int(found)
