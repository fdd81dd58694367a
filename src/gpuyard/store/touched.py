"""Which rows were written lately: whoever holds a reading of the store reads those again, and nothing else.

Sound because one process writes to a yard's store. Each function that writes a row of a kind that is told of here says
so in its transaction; `Store.write` makes it known just before the commit and again after it, so that no reading can
fall between a change and the word of it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

OPTION: Final = "gpuyard_touched"  # of a connection that writes: the set that its transaction fills
EVERY: Final = ""  # in place of an id: every row of the kind
_MOST = 1024  # rows that are remembered: a reading that is older than those is made anew


class Kind(StrEnum):
    """What is told of."""

    WORKLOAD = "workload"
    LEASE = "lease"  # with its slices
    METER = "meter"  # by its lease


Touch = tuple[Kind, str]


def touch(c: Connection, kind: Kind, row_id: str) -> None:
    """The transaction changes this row, or every one of its kind. Raises KeyError outside of `Store.write`."""
    c.get_execution_options()[OPTION].add((kind, row_id))


class TouchLog:
    """Rows by when they were last touched. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._touched: OrderedDict[Touch, int] = OrderedDict()
        self._forgotten = 0  # the newest position that is not told in full any more
        self.position = 0  # grows with everything that is made known

    def publish(self, rows: Iterable[Touch]) -> None:
        """Makes known that these are changed, or about to be."""
        with self._lock:
            self.position += 1
            for row in rows:
                self._touched[row] = self.position
                self._touched.move_to_end(row)
            while len(self._touched) > _MOST:
                _, self._forgotten = self._touched.popitem(last=False)

    def since(self, position: int) -> list[Touch] | None:
        """What was touched after the log had come to that position; None where it remembers too little for that."""
        with self._lock:
            if position < self._forgotten:
                return None
            found: list[Touch] = []
            for row, at in reversed(self._touched.items()):
                if at <= position:
                    break
                found.append(row)
            return found
