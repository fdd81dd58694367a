"""A row that has not changed gives the same frozen value again: looking at everything each second stays cheap."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Value = TypeVar("Value")
_REMEMBERED: Final = 64  # texts of a column


class Unchanged(Generic[Value]):
    """The values of the rows that were read last, one for each first column, which is the id; at most `kept`.

    Rows that are gone stay until others come, so `kept` bounds what that costs. What rows have in common, from the
    node's name to a whole spec, is kept once. May be used from any thread.
    """

    def __init__(self, make: Callable[..., Value], kept: int = 8192) -> None:
        self._make, self._kept = make, kept
        self._known: dict[str, tuple[tuple[Any, ...], Value]] = {}
        self._common: list[dict[str, str]] = []  # by column, texts that rows have lately had
        self._lock = threading.Lock()

    def __call__(self, *told: Any) -> Value:
        """The value of a row and of what belongs to it; the row comes first."""
        key = told[0][0]
        known = self._known.get(key)
        if known is not None and known[0] == told:
            return known[1]
        with self._lock:
            row = self._shared(told[0])
        value = self._make(row, *told[1:])
        with self._lock:
            self._known[key] = (row, *told[1:]), value
            if len(self._known) > self._kept:
                del self._known[next(iter(self._known))]
        return value

    def _shared(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row, with texts that others have too in place of its own. A column where each text is another's, such as
        an id, costs no more than the few that are remembered: the interpreter's own table would keep them all."""
        if len(self._common) < len(row):
            self._common += [{} for _ in range(len(row) - len(self._common))]
        found: list[Any] = []
        for each, known in zip(row, self._common, strict=False):
            if type(each) is str:
                if len(known) > _REMEMBERED:
                    known.clear()
                each = known.setdefault(each, each)
            found.append(each)
        return tuple(found)
