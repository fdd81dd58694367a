"""Workloads that run as they should, which is most of a yard: a look at them finds nothing to do, so it is not taken.

What a pass costs follows what happens then, and not what runs. Known from the store's own values: whatever was written
since comes back as another value, and only the workloads of those are judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gpuyard.control.decisions import Rest, at_rest
from gpuyard.control.reading import Reading
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.model.leases import Lease
from gpuyard.model.workloads import Workload

Value = TypeVar("Value")


@dataclass(slots=True)
class Resting:
    """Which workloads are at rest, kept from one pass to the next."""

    _open: Mapping[str, Lease] = field(default_factory=dict[str, Lease])
    _workloads: Mapping[str, Workload] = field(default_factory=dict[str, Workload])
    _leases: dict[str, tuple[Lease, ...]] = field(default_factory=dict[str, tuple[Lease, ...]])  # by workload
    _units: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # of those at rest
    _of_unit: dict[str, str] = field(default_factory=dict[str, str])
    _ends_us: dict[str, int] = field(default_factory=dict[str, int])  # where a time limit ends the rest

    def look(self, reading: Reading, observations: Mapping[str, Observation], now_us: int) -> Rest:
        """Workloads at rest: the store says so and their units run, without a time limit that is over, a notice or a
        move."""
        self._renew(reading)
        running = {name for name, seen in observations.items() if seen.state is UnitState.RUNNING}
        awake = {self._of_unit[unit] for unit in self._of_unit.keys() - running}
        awake |= {found.workload_id for found in self._of(reading, reading.notices.keys() | reading.moves.keys())}
        awake |= {workload_id for workload_id, ends_us in self._ends_us.items() if now_us >= ends_us}
        return Rest(self._units.keys() - awake if awake else self._units.keys(), self._of_unit.keys())

    def _of(self, reading: Reading, lease_ids: Iterable[str]) -> list[Lease]:
        return [reading.open[lease_id] for lease_id in lease_ids if lease_id in reading.open]

    def _renew(self, reading: Reading) -> None:
        if reading.open is self._open and reading.workloads is self._workloads:
            return
        touched = {workload.id for workload in _others(self._workloads, reading.workloads)}
        for lease in _others(self._open, reading.open):
            touched.add(lease.workload_id)
            others = tuple(x for x in self._leases.get(lease.workload_id, ()) if x.id != lease.id)
            now = reading.open.get(lease.id)
            self._leases[lease.workload_id] = others if now is None else (*others, now)
        self._open, self._workloads = reading.open, reading.workloads
        for workload_id in touched:
            self._judge(workload_id)

    def _judge(self, workload_id: str) -> None:
        for unit in self._units.pop(workload_id, ()):
            del self._of_unit[unit]
        self._ends_us.pop(workload_id, None)
        workload, leases = self._workloads.get(workload_id), self._leases.get(workload_id, ())
        if not leases:
            self._leases.pop(workload_id, None)
        if workload is None or not leases or not at_rest(workload, leases):
            return
        self._units[workload_id] = tuple(lease.unit_name for lease in leases)
        self._of_unit.update(dict.fromkeys(self._units[workload_id], workload_id))
        limit_us = workload.spec.time_limit_us
        if limit_us is not None:
            self._ends_us[workload_id] = limit_us + min(lease.run_started_us or 0 for lease in leases)


def _others(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[Value]:
    """Values that are new or another now, and those that are gone."""
    changed = [value for key, value in after.items() if before.get(key) is not value]
    return changed + [before[key] for key in before.keys() - after.keys()]
