"""Token buckets: so much at once, and then so much a second."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Buckets:
    """A bucket for each key, full at first. Of more keys than `most`, those that took longest ago are forgotten:
    whoever comes with ever new keys must not fill the memory."""

    per_second: float
    burst: int
    most: int = 10_000
    _held: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def wait_us(self, key: str, now_us: int) -> int:
        """How long until one may be taken; 0 for at once. Takes nothing."""
        level = self._level(key, now_us)
        return 0 if level >= 1 else round((1 - level) / self.per_second * 1_000_000) or 1

    def take(self, key: str, now_us: int) -> None:
        """Takes one, or what is left."""
        level = self._level(key, now_us)
        self._held.pop(key, None)
        while len(self._held) >= self.most:
            del self._held[next(iter(self._held))]
        self._held[key] = max(0.0, level - 1), now_us

    def _level(self, key: str, now_us: int) -> float:
        level, at_us = self._held.get(key, (float(self.burst), now_us))
        return min(float(self.burst), level + max(0, now_us - at_us) / 1_000_000 * self.per_second)
