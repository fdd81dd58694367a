"""How often one token may ask: a bucket for each token and class of actions, so that a script that runs wild holds up
nobody else, and one that only looks does not use up what launches need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpuyard.access.rates import Buckets


class ActionClass(StrEnum):
    """What is counted together. ENTER is whatever goes into a workload: commands, tunnels, files, logs."""

    READ = "read"
    CHANGE = "change"
    LAUNCH = "launch"
    ENTER = "enter"


@dataclass(frozen=True, slots=True)
class Rate:
    """So much at once, and then so much a second."""

    per_second: float
    burst: int


DEFAULTS: Final[Mapping[ActionClass, Rate | None]] = {
    ActionClass.READ: Rate(500, 5000),
    ActionClass.CHANGE: Rate(100, 1000),
    ActionClass.LAUNCH: Rate(50, 500),
    ActionClass.ENTER: Rate(50, 500),
}
_INSIDE: Final = frozenset({"exec", "ports", "files", "logs"})


def classify(method: str | None, path: str) -> ActionClass:
    """The class of a request; `method` None for a WebSocket, which always goes into a workload."""
    parts = path.strip("/").split("/")
    in_workloads = len(parts) > 1 and parts[1] == "workloads"
    if method is None or (in_workloads and len(parts) > 3 and parts[3] in _INSIDE):
        return ActionClass.ENTER
    if method in ("GET", "HEAD", "OPTIONS"):
        return ActionClass.READ
    return ActionClass.LAUNCH if in_workloads and len(parts) == 2 else ActionClass.CHANGE


class RateLimits:
    """The rates in force, and what of them is used. A class whose rate is None has no limit."""

    def __init__(self, rates: Mapping[ActionClass, Rate | None] = DEFAULTS) -> None:
        self.rates: Mapping[ActionClass, Rate | None] = dict(rates)
        self._buckets = {
            of: Buckets(rate.per_second, rate.burst) for of, rate in self.rates.items() if rate is not None
        }

    def admit(self, token_id: str, of: ActionClass, now_us: int) -> int:
        """0 where it may go on, which is counted; else how many microseconds there are to wait."""
        buckets = self._buckets.get(of)
        if buckets is None:
            return 0
        wait_us = buckets.wait_us(token_id, now_us)
        if not wait_us:
            buckets.take(token_id, now_us)
        return wait_us
