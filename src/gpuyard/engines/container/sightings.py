"""Looking at all units at once: the engine's list against the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from gpuyard.engines.container import observing
from gpuyard.engines.container.api import EngineApi, EngineGone, EngineRefused
from gpuyard.engines.container.creation import LABEL_UNIT, LABEL_YARD
from gpuyard.engines.container.launching import Launcher
from gpuyard.engines.container.observing import NOT_YET, RUNNING, Instant
from gpuyard.engines.container.records import Records, UnitRecord
from gpuyard.engines.interfaces import Traffic, traffic_of
from gpuyard.engines.runtime import Observation
from gpuyard.model.times import Clock

# How much of a running unit's last sign of life a kill of the yard together with its engine may cost.
_WRITE_EVERY_NS: Final = 5_000_000_000


class Watcher:
    """Turns what the engine lists into observations, and writes down what must not be lost."""

    def __init__(
        self,
        api: EngineApi,
        records: Records,
        launcher: Launcher,
        clock: Clock,
        yard: str,
        launched: Callable[[str], None],
    ) -> None:
        self._api = api
        self._records = records
        self._launcher = launcher
        self._clock = clock
        self._filter = json.dumps({"label": [f"{LABEL_YARD}={yard}"]})
        self._launched = launched
        self._written_ns: dict[str, int] = {}
        self.traffic: dict[str, Traffic] = {}  # of each unit, as its counters stood when it was last seen

    def observe(self) -> Mapping[str, Observation]:
        """Every unit. While the engine does not answer, as each was last seen: what nobody sees is not gone."""
        known = self._records.all()
        under_way = self._launcher.under_way()  # before the list: what is launched after it cannot be missed in it
        now = Instant.now(self._clock)
        try:
            listed: list[dict[str, Any]] = self._api.get("/containers/json", all="1", filters=self._filter)
            states = {entry["Labels"][LABEL_UNIT]: entry["State"] for entry in listed}
            for name in states.keys() - known.keys():
                self._adopt(name)
            for name, state in states.items():
                record = self._records.get(name)
                if record is not None and record.reason is None:
                    self._look(record, state, name in under_way, now)
            for name in known.keys() - states.keys() - under_way.keys():
                self._missing(known[name])
        except (EngineGone, EngineRefused):
            states = dict.fromkeys(known, "")
        return self._observations(states, under_way)

    def _observations(self, states: Mapping[str, str], under_way: Mapping[str, str | None]) -> dict[str, Observation]:
        found: dict[str, Observation] = {}
        for name, record in self._records.all().items():
            # A record alone, of a unit that is not on its way, is a launch that was cut off: it is not there.
            if record.reason is not None or record.started_ns is not None or name in states or name in under_way:
                found[name] = record.observation(under_way.get(name))
        return found

    def _adopt(self, name: str) -> None:
        container = self._api.inspect(name)
        if container is not None:
            self._records.note(observing.adopted(container))

    def _look(self, record: UnitRecord, state: str, under_way: bool, now: Instant) -> None:
        if state in RUNNING:
            self._running(record, now)
        elif state in NOT_YET and record.started_ns is None:
            if under_way:
                return
            if record.stop_asked:
                record.reason = "stopped"
                self._records.note(record)
            else:
                self._launcher.resume(record, self._launched)
        else:
            container = self._api.inspect(record.name)
            if container is None or container["State"]["Status"] in RUNNING:
                return  # between the list and now it went on: the next look sees it
            observing.saw_ended(record, container, Instant.now(self._clock))
            self._written_ns.pop(record.name, None)
            self._records.note(record)

    def _running(self, record: UnitRecord, now: Instant) -> None:
        if record.started_ns is None or record.boot_id != now.boot_id:
            container = self._api.inspect(record.name)
            if container is None or container["State"]["Status"] not in RUNNING:
                return
            observing.saw_running(record, container, Instant.now(self._clock))
            self._records.note(record)
            self._written_ns[record.name] = now.monotonic_ns
        traffic = None if record.pid is None else traffic_of(record.pid)
        if traffic is not None:
            self.traffic[record.name] = traffic
        record.seen_ns = max(record.seen_ns or 0, record.started_ns or 0, now.monotonic_ns)
        if now.monotonic_ns - self._written_ns.get(record.name, 0) > _WRITE_EVERY_NS:
            self._records.note(record)
            self._written_ns[record.name] = now.monotonic_ns

    def _missing(self, record: UnitRecord) -> None:
        if record.reason is None and record.started_ns is not None:
            observing.saw_nothing(record)
            self._records.note(record)
        elif record.reason is None and record.stop_asked:
            record.reason = "stopped"
            self._records.note(record)
