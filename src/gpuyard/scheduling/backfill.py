"""Room that is kept for a gang that cannot start yet, and what may use it until then. Pure.

The reservation says where the gang will go and when it can at the latest, from what is known to end. Until then others
may have that room only if they are sure to be gone by then (conservative backfill).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpuyard.scheduling.plan import NodeView, Placement, Request, Scheduler, Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.running import Running, released


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where a gang will go. `start_us` None: nobody knows when, as what is there has no end."""

    gang: Gang
    placements: tuple[Placement, ...]
    start_us: int | None


def reserve(
    scheduler: Scheduler, snapshot: Snapshot, gang: Gang, running: Sequence[Running], now_us: int, open_ended: bool
) -> Reservation | None:
    """The earliest moment at which the gang fits as leases end, and where it fits then.

    Where the ends that are known do not free enough: None, or with `open_ended` the place where it would fit in the
    empty fleet, which then drains for it.
    """
    ends = sorted({lease.ends_us for lease in running if lease.ends_us is not None})
    low, high = 0, len(ends) - 1
    found: Reservation | None = None
    while low <= high:
        middle = (low + high) // 2
        placed = _fits(scheduler, snapshot, gang, (r for r in running if _ends_by(r, ends[middle])), now_us)
        if placed is None:
            low = middle + 1
        else:
            found = Reservation(gang, placed, max(now_us, ends[middle]))
            high = middle - 1
    if found is None and open_ended and (placed := _fits(scheduler, snapshot, gang, running, now_us)) is not None:
        return Reservation(gang, placed, None)
    return found


def _ends_by(lease: Running, moment_us: int) -> bool:
    return lease.ends_us is not None and lease.ends_us <= moment_us


def _fits(
    scheduler: Scheduler, snapshot: Snapshot, gang: Gang, gone: Iterable[Running], now_us: int
) -> tuple[Placement, ...] | None:
    plan = scheduler.plan(released(snapshot, gone), gang.members, now_us)
    return plan.placements if not plan.refusals else None


def without(snapshot: Snapshot, reservations: Iterable[Reservation]) -> Snapshot:
    """The fleet as those see it who may not count on being gone in time: less what is reserved."""
    changed: dict[str, NodeView] = {}
    nodes = {node.name: node for node in snapshot.nodes}
    for reservation in reservations:
        asked = {member.lease_id: member for member in reservation.gang.members}
        for placed in reservation.placements:
            node = changed.get(placed.node, nodes[placed.node])
            changed[placed.node] = _keep(node, placed, asked[placed.lease_id])
    return snapshot.with_nodes(changed)


def _keep(node: NodeView, placed: Placement, request: Request) -> NodeView:
    return replace(
        node,
        cpu_free_milli=max(0, node.cpu_free_milli - request.cpu_milli),
        memory_free_bytes=max(0, node.memory_free_bytes - request.memory_bytes),
        cards=tuple(
            replace(card, schedulable=False) if card.uuid in placed.card_uuids else card for card in node.cards
        ),
    )


def gone_in_time(gang: Gang, reservations: Sequence[Reservation], now_us: int) -> bool:
    """Whether all of the gang is sure to have ended before any of the reservations begins."""
    starts = [reservation.start_us for reservation in reservations]
    if None in starts:
        return False
    limits = [member.time_limit_us for member in gang.members]
    longest = max((limit for limit in limits if limit is not None), default=0)
    return None not in limits and all(start is not None and now_us + longest <= start for start in starts)
