"""Tells, once each, of processes that use a card past their slice; ends them where the operator wants that."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.slicing.escape import Stranger
from gpuyard.store import events, leases

log = logging.getLogger(__name__)


class EscapeWatch:
    """Remembers whom it has told of, so that one escape is one event."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._told: frozenset[tuple[str, int, int]] = frozenset()

    def look(self, now_us: int) -> None:
        """Appends an event for every stranger that is new. A driver that is silent is left to the probe to tell."""
        try:
            trying = self._yard.engine.trying  # past the library, because somebody asked to
            found = [stranger for stranger in self._yard.engine.strangers() if stranger.unit not in trying]
            ended = self._end(found) if found and self._yard.end_escaped else frozenset[tuple[str, int, int]]()
        except (OSError, YardError) as error:
            log.warning("cards_not_seen", extra={"reason": str(error)})
            return
        fresh = [stranger for stranger in found if _key(stranger) not in self._told]
        self._told = frozenset(map(_key, found))
        if not fresh:
            return
        with self._yard.store.write() as c:
            told: list[Event] = []
            for stranger in fresh:
                lease = leases.get(c, stranger.unit.rpartition("-")[0])
                data = {
                    "card": stranger.card_uuid,
                    "pid": stranger.pid,
                    "used_bytes": stranger.used_bytes,
                    "ended": _key(stranger) in ended,
                }
                tenant_id = lease.tenant_id if lease is not None else None
                subject = lease.workload_id if lease is not None else stranger.unit
                told.append(Event("slice.escaped", subject, now_us, tenant_id, data=data))
            events.append(c, told)

    def _end(self, found: Sequence[Stranger]) -> frozenset[tuple[str, int, int]]:
        """Ends those that a second look finds too: the first may have met a process half-way into its slice."""
        again = {_key(stranger) for stranger in self._yard.engine.strangers()}
        return frozenset(_key(each) for each in found if _key(each) in again and each.end())


def _key(stranger: Stranger) -> tuple[str, int, int]:
    return stranger.unit, stranger.pid, stranger.start_time
