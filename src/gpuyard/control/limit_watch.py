"""Tells of memory limits of the driver's own that were not as they should be: somebody changed one, or a program left
the group that has it. Whoever looks for strangers on the cards sees it, and puts it right.
"""

from __future__ import annotations

from gpuyard.control.fleet_watch import offer_anew
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.store import events, leases


def tell_of_limits(yard: Yard, now_us: int) -> None:
    """Appends an event for each: `slice.limit_restored`, or `slice.limit_lost` where that did not work, once. On such a
    card nothing is `kernel` until it does."""
    found = yard.engine.limit_changes()
    if not found:
        return
    with yard.store.write() as c:
        told: list[Event] = []
        for change in found:
            lease = leases.get(c, change.unit.rpartition("-")[0])
            subject = lease.workload_id if lease is not None else change.unit
            tenant_id = lease.tenant_id if lease is not None else None
            data = {"card": change.card_uuid, "pid": change.pid}
            kind = "slice.limit_restored"
            if change.reason is not None:
                kind, data = "slice.limit_lost", {**data, "reason": change.reason}
            told.append(Event(kind, subject, now_us, tenant_id, data=data))
        events.append(c, told)
    offer_anew(yard)  # where a limit was lost, none is offered that nobody holds
