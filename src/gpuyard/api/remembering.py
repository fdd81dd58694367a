"""Answers that stay true until something is written: the same list asked for again costs no query.

Sound because one process writes to a yard's store (its lock sees to that), and `Store.generation` changes with each of
its writes; `Yard.seen_version` changes where the engine, and not the store, has something new.
"""

from __future__ import annotations

from collections.abc import Hashable

CAPACITY = 256


class Answers:
    """The bodies answered since the last change."""

    def __init__(self) -> None:
        self._state: Hashable = None
        self._bodies: dict[Hashable, bytes] = {}

    def get(self, state: Hashable, question: Hashable) -> bytes | None:
        """The body given to this question in this state of the world."""
        if state != self._state:
            self._state = state
            self._bodies = {}
            return None
        return self._bodies.get(question)

    def put(self, state: Hashable, question: Hashable, body: bytes) -> None:
        """Keeps a body, if the world has not changed while it was made."""
        if state == self._state and len(self._bodies) < CAPACITY:
            self._bodies[question] = body
