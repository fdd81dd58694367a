"""Moments as integer microseconds since 1970-01-01T00:00:00Z, and their one text form (RFC 3339, UTC)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from gpuyard.model.errors import YardError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where time comes from. An argument everywhere, so that tests and the simulator can own it."""

    def now_us(self) -> int:
        """Yard time: UTC microseconds that never go backwards and advance with `monotonic_ns`."""
        ...

    def monotonic_ns(self) -> int:
        """The node's monotonic clock, which no step of the wall clock moves."""
        ...

    def offset_us(self) -> int:
        """How far the wall clock is ahead of yard time now."""
        ...

    @property
    def boot_id(self) -> str:
        """Names the boot that `monotonic_ns` belongs to; values of two boots must not be compared."""
        ...


def to_text(moment_us: int) -> str:
    """`2026-11-23T15:04:05.123456Z`."""
    return (_EPOCH + timedelta(microseconds=moment_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> int:
    """Microseconds from an RFC 3339 moment. A moment without an offset is refused: it names no instant.

    Raises YardError `invalid_time`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise YardError("invalid_time", value=text[:64]) from None
    if moment.tzinfo is None:
        raise YardError("invalid_time", value=text[:64])
    return (moment - _EPOCH) // timedelta(microseconds=1)


def day_of(moment_us: int) -> str:
    """The UTC day of a moment, `2026-11-23`."""
    return (_EPOCH + timedelta(microseconds=moment_us)).strftime("%Y-%m-%d")
