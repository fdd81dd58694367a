"""Every hour: did leases run as long as the event log says, as the node recorded, and as was billed?

A difference is an incident: it is kept, told once, listed, and closed when the three agree again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from gpuyard.billing.settling import Cost
from gpuyard.control.settling import owed_by_leases, settle_due
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.model.units import SECOND_US
from gpuyard.store import charges, events, incidents, meta, meters, reconciliation
from gpuyard.store.reconciliation import Discrepancy, Holding

TOLERANCE_US: Final = SECOND_US  # a spell: clocks are read at different moments
_SEEN: Final = "reconciled_events"
_PIECE: Final = 5000


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared: leases that do not run now, and the sums of the three over those that the node has a record
    of."""

    leases: int
    without_node_record: int
    scheduler_us: int
    node_us: int
    billed_us: int
    faults: tuple[str, ...]
    found: tuple[Discrepancy, ...]


def reconcile(yard: Yard, now_us: int, everything: bool) -> Reconciliation:
    """Compares the leases of which something happened since the last time, or all of them."""
    settle_due(yard, now_us)
    touched = _follow_events(yard)
    with yard.store.read() as c:
        known = reconciliation.open_discrepancies(c)
        wanted = None if everything else touched | known.keys()
        still = [h for h in reconciliation.holdings(c, wanted).values() if h.since_us is None and h.spells]
        compared = _compare(c, yard, still, now_us)
        faults = tuple(reconciliation.ledger_faults(c)) if everything else ()
    found = [each for each in compared if not _agree(each)]
    _write(yard, found, {each.lease_id for each in compared if _agree(each)}, now_us)
    recorded = [each for each in compared if each.node_us is not None]
    with yard.store.read() as c:
        left = tuple(reconciliation.open_discrepancies(c).values())
    return Reconciliation(
        leases=len(compared),
        without_node_record=len(compared) - len(recorded),
        scheduler_us=sum(each.scheduler_us for each in recorded),
        node_us=sum(each.node_us or 0 for each in recorded),
        billed_us=sum(each.billed_us for each in recorded),
        faults=faults,
        found=left,
    )


def _follow_events(yard: Yard) -> set[str]:
    """Brings holdings up to date with the event log, in pieces; the leases that something happened to."""
    touched: set[str] = set()
    while True:
        with yard.store.write() as c:
            seen, newest = int(meta.get(c, _SEEN) or 0), events.last(c)
            told = reconciliation.lease_events(c, seen, newest, _PIECE)
            changed = reconciliation.holdings(c, {lease_id for _, _, lease_id, _, _ in told})
            for _, kind, lease_id, tenant_id, at_us in told:
                before = changed.get(lease_id) or Holding(lease_id, tenant_id, 0, None, 0)
                changed[lease_id] = _after(before, kind == "lease.active", at_us)
            reconciliation.keep_holdings(c, list(changed.values()))
            meta.put(c, _SEEN, str(told[-1][0] if len(told) == _PIECE else newest))
        touched |= changed.keys()
        if len(told) < _PIECE:
            return touched


def _after(holding: Holding, active: bool, at_us: int) -> Holding:
    if holding.since_us is not None:
        holding = replace(holding, active_us=holding.active_us + at_us - holding.since_us, since_us=None)
    return replace(holding, since_us=at_us, spells=holding.spells + 1) if active else holding


def _compare(c: Connection, yard: Yard, still: Collection[Holding], now_us: int) -> list[Discrepancy]:
    names = {holding.lease_id for holding in still}
    node, billed = reconciliation.node_times(c, names), reconciliation.billed_times(c, names)
    owed, posted = owed_by_leases(c, yard, names), charges.load(c, names)
    running = meters.open_meters(c).keys()
    compared: list[Discrepancy] = []
    for holding in still:
        lease_id = holding.lease_id
        ran_us, units = node.get(lease_id, (0, 0))
        charge = posted.get(lease_id)
        # A stopped lease goes on costing what its disk costs: what is posted may lag behind, which is no difference.
        lags = lease_id in running
        rated = owed[lease_id].cost if lease_id in owed else Cost()
        booked = Cost(charge.revenue_nano, charge.credited_nano) if charge is not None else Cost()
        compared.append(
            Discrepancy(
                id=f"rc:{lease_id}:{now_us}",
                lease_id=lease_id,
                tenant_id=holding.tenant_id,
                found_us=now_us,
                scheduler_us=holding.active_us,
                node_us=ran_us if units >= holding.spells else None,
                billed_us=billed.get(lease_id, (0, 0))[0],
                posted_nano=booked.due_nano,
                rated_nano=booked.due_nano if lags and rated.due_nano > booked.due_nano else rated.due_nano,
            )
        )
    return compared


def _agree(each: Discrepancy) -> bool:
    """Whether all that is known says the same. What the node has no record of is not held against it."""
    told = [each.scheduler_us, each.billed_us, *([] if each.node_us is None else [each.node_us])]
    return max(told) - min(told) <= TOLERANCE_US and each.posted_nano == each.rated_nano


def _write(yard: Yard, found: Collection[Discrepancy], agreed: Collection[str], now_us: int) -> None:
    with yard.store.read() as c:
        known = reconciliation.open_discrepancies(c)
    new = [each for each in found if each.lease_id not in known]
    over = [known[lease_id] for lease_id in agreed if lease_id in known]
    if not new and not over:
        return
    with yard.store.write() as c:
        for each in new:
            reconciliation.insert(c, each)
            incidents.insert(c, _incident(each))
        for each in over:
            reconciliation.resolve(c, each.id, now_us)
            incidents.close(c, each.id, now_us, "yard", Outcome.REPAIRED)
        told = [Event("incident.opened", each.id, now_us, data=reconciliation.dump(each)) for each in new]
        told += [Event("incident.resolved", each.id, now_us, data={"lease_id": each.lease_id}) for each in over]
        events.append(c, told)


def _incident(found: Discrepancy) -> Incident:
    """As it stands among the incidents. Nothing is given back for it: which of the three is right, a person decides."""
    node = "--" if found.node_us is None else found.node_us / SECOND_US
    what = f"scheduler={found.scheduler_us / SECOND_US} node={node} billed={found.billed_us / SECOND_US} s"
    cause = Cause.RECONCILIATION
    return Incident(found.id, cause, None, None, found.lease_id, what, found.found_us, "yard", last_good_us=None)
