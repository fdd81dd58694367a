"""One measured figure, and how it is printed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`ok` says whether the goal was met; `peer` who was measured on the same work elsewhere, and what they reached;
    `how` how this value came about."""

    name: str
    value: float
    unit: str
    goal: str
    ok: bool
    peer: str
    how: str

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    def as_line(self) -> str:
        mark = "ok  " if self.ok else "MISS"
        return f"{mark} {self.name:<34} {self.value:>10.4g} {self.unit:<9} goal {self.goal:<10} {self.how} | peer: {self.peer}"


def at_most(name: str, value: float, unit: str, goal: float, peer: str, how: str) -> Figure:
    """A figure that must not exceed its goal."""
    return Figure(name, round(value, 6), unit, f"<= {goal:g}", value <= goal, peer, how)


def at_least(name: str, value: float, unit: str, goal: float, peer: str, how: str) -> Figure:
    """A figure that must reach its goal."""
    return Figure(name, round(value, 6), unit, f">= {goal:g}", value >= goal, peer, how)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]
