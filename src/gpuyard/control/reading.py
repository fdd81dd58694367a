"""What the loops know of the store: read once, and from then on only what was written since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from gpuyard.control.yard import Yard
from gpuyard.model.leases import Lease
from gpuyard.model.workloads import Workload
from gpuyard.store import fleet, leases, meters, moves, placements, workloads
from gpuyard.store.meters import Meter
from gpuyard.store.moves import Move
from gpuyard.store.placements import Notice
from gpuyard.store.touched import EVERY, Kind

Row = TypeVar("Row")

_SOME: Final = 400  # rows: more are as quickly read with all the others


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent reading of the store: what has not ended, oldest first. `position` is where the log of touched
    rows was before it. Its mappings are never changed."""

    generation: int
    position: int
    fleet_version: int
    workloads: dict[str, Workload]
    open: dict[str, Lease]
    meters: dict[str, Meter]
    notices: Mapping[str, Notice]
    moves: Mapping[str, Move]

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The leases alone."""
        return tuple(self.open.values())


def read(yard: Yard, before: Reading | None = None) -> Reading:
    """Reads the store: all of it, or what was touched since an earlier reading.

    Workloads of a runtime that this yard was started without are left as they are until it is back.
    """
    # Both before reading: a write meanwhile makes this reading old, never too new.
    generation, position = yard.store.generation, yard.store.touched.position
    with yard.store.read() as c:
        version = fleet.version(c)  # from here on the transaction sees one state, of which the log tells at least
        touched = _touched(yard, before)

        def of_here(found: Iterable[Workload]) -> dict[str, Workload]:
            return {workload.id: workload for workload in found if workload.runtime in yard.engine.runtimes}

        known = _renewed(
            before.workloads if before is not None else {},
            touched[Kind.WORKLOAD],
            lambda: of_here(workloads.unsettled(c)),
            lambda ids: of_here(workloads.unsettled_among(c, ids)),
        )

        def of_known(found: Iterable[Lease]) -> dict[str, Lease]:
            return {lease.id: lease for lease in found if lease.workload_id in known}

        return Reading(
            generation=generation,
            position=position,
            fleet_version=version,
            workloads=known,
            open=_renewed(
                before.open if before is not None else {},
                touched[Kind.LEASE],
                lambda: of_known(leases.open_leases(c)),
                lambda ids: of_known(leases.open_among(c, ids)),
            ),
            meters=_renewed(
                before.meters if before is not None else {},
                touched[Kind.METER],
                lambda: meters.open_meters(c),
                lambda ids: meters.open_among(c, ids),
            ),
            notices=placements.notices(c),
            moves=moves.under_way(c),
        )


def _touched(yard: Yard, before: Reading | None) -> Mapping[Kind, list[str] | None]:
    """The rows of each kind to read again; None where all of them are to be read."""
    told = None if before is None else yard.store.touched.since(before.position)
    if told is None:
        return dict.fromkeys(Kind)
    return {kind: [row_id for of, row_id in told if of is kind] for kind in Kind}


def _renewed(
    before: dict[str, Row],
    ids: Sequence[str] | None,
    every: Callable[[], dict[str, Row]],
    some: Callable[[Sequence[str]], dict[str, Row]],
) -> dict[str, Row]:
    if ids is None or EVERY in ids or len(ids) > _SOME:
        return every()
    if not ids:
        return before
    found = some(ids)
    after = dict(before)
    for row_id in sorted(ids):
        if row_id in found:
            after[row_id] = found[row_id]
        else:
            after.pop(row_id, None)
    first_new = min(found.keys() - before.keys(), default=None)
    if first_new is not None and before and first_new < next(reversed(before.keys())):
        return dict(sorted(after.items()))  # ids tell the time, and the clock went back
    return after
