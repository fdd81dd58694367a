"""Requests that are placed together or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from gpuyard.scheduling.engine import Engine
from gpuyard.scheduling.state import Where


def place_together(engine: Engine, classes: Sequence[int]) -> list[Where] | None:
    """Places one request of each of these classes, in their order; None, with nothing taken, where one of them fits
    nowhere."""
    placed: list[Where] = []
    for class_ in classes:
        where = engine.place(class_)
        if where is None:
            for taken, at in zip(classes, placed, strict=False):
                engine.give(taken, at)
            return None
        placed.append(where)
    return placed
