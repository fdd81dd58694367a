"""Every hour: did leases run as long, and on as much of a card, as the event log says, as the node recorded, and as was
billed? A difference is an incident: it is kept, told once, listed, and closed when the three agree again.

What runs is compared as far as it is billed: up to its meter's last proven moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from gpuyard.billing.settling import Cost
from gpuyard.control.settling import owed_by_leases, settle_due
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.model.events import Event
from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SECOND_US
from gpuyard.store import charges, events, incidents, leases, meta, meters, reconciliation
from gpuyard.store.meters import Meter
from gpuyard.store.reconciliation import Discrepancy, Holding, LeaseEvent, Ran

TOLERANCE_US: Final = SECOND_US  # of what a lease holds: clocks are read at different moments
_SEEN: Final = "reconciled_events"
_PIECE: Final = 5000


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared, and the sums of the three over those leases that the node has a record of; of card time, cards
    x microseconds, over those of which all three know it."""

    leases: int
    without_node_record: int
    scheduler_us: int
    node_us: int
    billed_us: int
    scheduler_card_us: int
    node_card_us: int
    billed_card_us: int
    faults: tuple[str, ...]
    found: tuple[Discrepancy, ...]


def reconcile(yard: Yard, now_us: int, everything: bool) -> Reconciliation:
    """Compares the leases that run or of which something happened since the last time, or all of them."""
    settle_due(yard, now_us)
    touched = _follow_events(yard)
    with yard.store.read() as c:
        known = reconciliation.open_discrepancies(c)
        counting = meters.open_meters(c)
        wanted = None if everything else touched | known.keys() | counting.keys()
        held = [each for each in reconciliation.holdings(c, wanted).values() if each.spells]
        compared = _compare(c, yard, held, counting, now_us)
        faults = tuple(reconciliation.ledger_faults(c)) if everything else ()
    found = [each for each in compared if not _agree(each)]
    _write(yard, found, {each.lease_id for each in compared if _agree(each)}, now_us)
    recorded = [each for each in compared if each.node_us is not None]
    shared = [each for each in recorded if None not in _card_times(each)]
    with yard.store.read() as c:
        left = tuple(reconciliation.open_discrepancies(c).values())
    return Reconciliation(
        leases=len(compared),
        without_node_record=len(compared) - len(recorded),
        scheduler_us=sum(each.scheduler_us for each in recorded),
        node_us=sum(each.node_us or 0 for each in recorded),
        billed_us=sum(each.billed_us for each in recorded),
        scheduler_card_us=sum(each.scheduler_card_us or 0 for each in shared),
        node_card_us=sum(each.node_card_us or 0 for each in shared),
        billed_card_us=sum(each.billed_card_us or 0 for each in shared),
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
            changed = reconciliation.holdings(c, {each.lease_id for each in told})
            for each in told:
                before = changed.get(each.lease_id) or Holding(each.lease_id, each.tenant_id, 0, None, 0)
                changed[each.lease_id] = _after(before, each)
            reconciliation.keep_holdings(c, list(changed.values()))
            meta.put(c, _SEEN, str(told[-1].sequence if len(told) == _PIECE else newest))
        touched |= changed.keys()
        if len(told) < _PIECE:
            return touched


def _after(holding: Holding, told: LeaseEvent) -> Holding:
    if holding.since_us is not None:
        ran = _until(holding, told.at_us)
        holding = replace(holding, active_us=ran.us, card_us=ran.card_us, since_us=None, share_ppm=None)
    if not told.active:
        return holding
    return replace(holding, since_us=told.at_us, spells=holding.spells + 1, share_ppm=told.share_ppm)


def _until(holding: Holding, moment_us: int) -> Ran:
    """What the event log says of a lease, up to that moment where it is active."""
    so_far = Ran(holding.active_us, holding.card_us, holding.spells)
    if holding.since_us is None:
        return so_far
    return reconciliation.add(so_far, max(0, moment_us - holding.since_us), holding.share_ppm, 0)


def _compare(
    c: Connection, yard: Yard, held: Collection[Holding], counting: Mapping[str, Meter], now_us: int
) -> list[Discrepancy]:
    names = {holding.lease_id for holding in held}
    node, billed = reconciliation.node_times(c, names), reconciliation.billed_times(c, names)
    owed, posted = owed_by_leases(c, yard, names, counting), charges.load(c, names)
    units = {lease.id: lease.unit_name for lease in leases.open_leases(c)}
    compared: list[Discrepancy] = []
    for holding in held:
        lease_id = holding.lease_id
        meter = counting.get(lease_id)
        ended, paid = node.get(lease_id, Ran()), billed.get(lease_id, Ran())
        told = _until(holding, now_us if meter is None else meter.proven_us)
        if meter is not None and meter.state is LeaseState.ACTIVE:
            so_far_us = meter.proven_us - meter.start_us
            paid = reconciliation.add(paid, so_far_us, meter.share_ppm)
            ended = _with_running(ended, yard.seen.get(units.get(lease_id, "")), so_far_us)
        charge = posted.get(lease_id)
        # What is counted goes on costing: what is posted may lag behind, which is no difference.
        lags = meter is not None
        rated = owed[lease_id].cost if lease_id in owed else Cost()
        booked = Cost(charge.revenue_nano, charge.credited_nano) if charge is not None else Cost()
        known = ended.pieces >= holding.spells
        compared.append(
            Discrepancy(
                id=f"rc:{lease_id}:{now_us}",
                lease_id=lease_id,
                tenant_id=holding.tenant_id,
                found_us=now_us,
                scheduler_us=told.us,
                node_us=ended.us if known else None,
                billed_us=paid.us,
                posted_nano=booked.due_nano,
                rated_nano=booked.due_nano if lags and rated.due_nano > booked.due_nano else rated.due_nano,
                scheduler_card_us=told.card_us,
                node_card_us=ended.card_us if known else None,
                billed_card_us=paid.card_us,
            )
        )
    return compared


def _with_running(ended: Ran, unit: Observation | None, billed_us: int) -> Ran:
    """What the node says with the unit that runs, of which it may have seen more than is billed so far."""
    if unit is None or unit.state is not UnitState.RUNNING or unit.started_ns is None or unit.proven_ns is None:
        return ended
    ran_us = (unit.proven_ns - unit.started_ns) // 1000
    return reconciliation.add(ended, min(ran_us, billed_us), unit.share_ppm)


def _card_times(each: Discrepancy) -> list[int | None]:
    return [each.scheduler_card_us, each.node_card_us, each.billed_card_us]


def _agree(each: Discrepancy) -> bool:
    """Whether all that is known says the same. What the node has no record of is not held against it."""
    told = [each.scheduler_us, each.billed_us, *([] if each.node_us is None else [each.node_us])]
    cards = [us for us in _card_times(each) if us is not None] or [0]
    # As many cards as were held at most, on the mean: a second of all of them, and what rounding took off.
    tolerated = TOLERANCE_US * max(1, -(-max(cards) // max(1, *told)))
    same_time = max(told) - min(told) <= TOLERANCE_US and max(cards) - min(cards) <= tolerated
    return same_time and each.posted_nano == each.rated_nano


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
    cards = ("--" if us is None else us / SECOND_US for us in _card_times(found))
    what += "; cards x s: scheduler={} node={} billed={}".format(*cards)
    cause = Cause.RECONCILIATION
    return Incident(found.id, cause, None, None, found.lease_id, what, found.found_us, "yard", last_good_us=None)
