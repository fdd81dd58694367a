"""Parts of a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuyard.model.units import SECOND_US

MINUTES_A_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day, in minutes since midnight UTC; one that ends before it begins goes over midnight."""

    start_minute: int
    end_minute: int

    def holds(self, now_us: int) -> bool:
        """Whether this moment lies in it."""
        minute = now_us // (60 * SECOND_US) % MINUTES_A_DAY
        if self.start_minute <= self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute
