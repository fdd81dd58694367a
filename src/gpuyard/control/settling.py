"""Brings the ledger up to date: what was used is posted, what runs has money held for it, what ended lets go of it.

Everything happens in the transaction that reads what it is derived from, so a process that dies leaves all of it done
or none, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.billing.settling import Cost, costs, hold_nano, settle
from gpuyard.control.money import plain_lines, provisional, rated_lines
from gpuyard.control.rating_conditions import are_plain
from gpuyard.control.yard import Yard
from gpuyard.model.leases import UNPRICED, Interval
from gpuyard.model.ledger import AccountKind, Charge, Transfer, account
from gpuyard.model.states import LeaseState
from gpuyard.model.tenants import Tenant
from gpuyard.store import charges, egress, ledger, meters, wallets
from gpuyard.store.meters import Meter

A_BATCH = 200  # leases in one transaction: some ten milliseconds
_RUNS = frozenset({LeaseState.GRANTED.value, LeaseState.ACTIVE.value})


@dataclass(frozen=True, slots=True)
class Owed:
    """What a subject has cost to date, and whose it is."""

    tenant_id: str
    offer: str
    currency: str
    cost: Cost


def settle_due(yard: Yard, now_us: int) -> int:
    """Posts the leases of which an interval was closed; how many there were."""
    count = 0
    while True:
        with yard.store.read() as c:
            waiting = charges.due(c, A_BATCH)
        if not waiting:
            return count
        with yard.store.write() as c:
            settle_leases(c, yard, waiting, now_us)
            charges.done(c, waiting)
        count += len(waiting)


def settle_running(yard: Yard, now_us: int) -> None:
    """Posts what has run for a while, extends its holds, and lets go of what is held for nothing."""
    with yard.store.read() as c:
        running = [m for m in meters.open_meters(c).values() if m.price_per_hour_nano]
        known = charges.load(c, [meter.lease_id for meter in running]) if running else {}
        left = charges.held_for_nothing(c)
    late_us = now_us - yard.wallet_terms.settle_every_us
    due = [
        meter.lease_id
        for meter in running
        if (known[meter.lease_id].settled_us if meter.lease_id in known else meter.start_us) <= late_us
    ]
    names = sorted({*due, *left})
    for start in range(0, len(names), A_BATCH):
        with yard.store.write() as c:
            settle_leases(c, yard, names[start : start + A_BATCH], now_us)


def settle_leases(c: Connection, yard: Yard, lease_ids: Collection[str], now_us: int) -> None:
    """Posts what these leases (and what is rated with them) have cost up to the last proven moments."""
    owed = owed_by_leases(c, yard, lease_ids)
    subjects = owed.keys() | set(lease_ids)
    known = charges.load(c, subjects, lock=True)
    facts = charges.lease_facts(c, subjects)
    prepaid: dict[str, bool] = {}
    available: dict[str, int] = {}
    posted: list[Transfer] = []
    changed: list[Charge] = []
    for subject in sorted(subjects):
        charge = known.get(subject) or _first_charge(subject, owed)
        if charge is None:
            continue
        wallet = account(AccountKind.WALLET, charge.tenant_id, charge.currency)
        if charge.tenant_id not in prepaid:
            prepaid[charge.tenant_id] = wallets.find(c, charge.tenant_id).prepaid
            available[wallet] = ledger.balances(c, [wallet])[wallet]
        cost = owed[subject].cost if subject in owed else Cost(charge.revenue_nano, charge.credited_nano)
        wanted = _hold(yard, facts.get(subject), prepaid[charge.tenant_id])
        after, transfers = settle(charge, cost, wanted, available[wallet], now_us)
        available[wallet] += sum(t.amount_nano * ((t.credit == wallet) - (t.debit == wallet)) for t in transfers)
        posted += transfers
        changed.append(after)
    ledger.post(c, posted)
    charges.save(c, changed)


def _first_charge(subject: str, owed: Mapping[str, Owed]) -> Charge | None:
    found = owed.get(subject)
    return None if found is None else Charge(subject, found.tenant_id, found.offer, found.currency)


def _hold(yard: Yard, facts: tuple[str, int | None] | None, prepaid: bool) -> int | None:
    """What is to be held for a lease: nothing once it has stopped; as before while it waits."""
    if facts is None or not prepaid:
        return 0
    state, price = facts
    if state == LeaseState.REQUESTED.value:
        return None
    return hold_nano(price, yard.wallet_terms.hold_window_us) if state in _RUNS and price else 0


def owed_by_leases(
    c: Connection, yard: Yard, lease_ids: Collection[str], counting: Mapping[str, Meter] | None = None
) -> dict[str, Owed]:
    """What these leases have cost to date, with all that their tenants' commitments change about it. `counting`: the
    open meters, where the caller has read them in this transaction."""
    intervals = meters.of_leases(c, lease_ids)
    counting = meters.open_meters(c) if counting is None else counting
    running = [counting[lease_id] for lease_id in sorted(lease_ids) if lease_id in counting]
    plain: dict[str, bool] = {}
    for tenant_id in {*(each.tenant_id for each in intervals), *(meter.tenant_id for meter in running)}:
        plain[tenant_id] = are_plain(c, yard.prices, tenant_id)
    open_runs = frozenset((meter.lease_id, meter.run) for meter in running if meter.state != "stopped")
    used = [each for each in [*intervals, *map(provisional, running)] if plain[each.tenant_id]]
    sent = [each for each in egress.of_leases(c, lease_ids) if plain.get(each.tenant_id)]
    lines = plain_lines(c, used, open_runs, sent)
    owed = _of_lines(((line.lease_id, line.amount_nano) for line in lines), _origins(used))
    for tenant_id, is_plain in plain.items():
        if not is_plain:
            owed.update(owed_by_tenant(c, yard, tenant_id))
    return owed


def owed_by_tenant(c: Connection, yard: Yard, tenant_id: str) -> dict[str, Owed]:
    """Everything that a tenant has cost to date, by subject; commitments stand under the account's own name."""
    lines = rated_lines(c, yard.prices, tenant_id)
    own = f"account:{tenant_id}"
    origins = {line.lease_id or own: (tenant_id, line.offer or "commitments", line.currency) for line in lines}
    return _of_lines(((line.lease_id or own, line.amount_nano) for line in lines), origins)


def _origins(used: Iterable[Interval]) -> dict[str, tuple[str, str, str]]:
    return {each.lease_id: (each.tenant_id, each.offer, each.currency) for each in used if each.currency != UNPRICED}


def _of_lines(lines: Iterable[tuple[str, int]], origins: Mapping[str, tuple[str, str, str]]) -> dict[str, Owed]:
    return {subject: Owed(*origins[subject], cost) for subject, cost in costs(lines).items()}


def unposted_nano(c: Connection, yard: Yard, tenant_id: str, counting: Mapping[str, Meter] | None = None) -> int:
    """What a tenant has used and the ledger does not have yet."""
    counting = meters.open_meters(c) if counting is None else counting
    if are_plain(c, yard.prices, tenant_id):
        mine = {m.lease_id for m in counting.values() if m.tenant_id == tenant_id}
        names = sorted(mine | set(charges.due_of(c, tenant_id)))
        some = (names[start : start + A_BATCH] for start in range(0, len(names), A_BATCH))
        return sum(_unposted(c, owed_by_leases(c, yard, piece, counting)) for piece in some)
    return _unposted(c, owed_by_tenant(c, yard, tenant_id))


def _unposted(c: Connection, owed: Mapping[str, Owed]) -> int:
    known = charges.load(c, owed.keys()) if owed else {}
    posted = sum(charge.revenue_nano - charge.credited_nano for charge in known.values())
    return sum(each.cost.due_nano for each in owed.values()) - posted


def live_balance_nano(c: Connection, yard: Yard, tenant: Tenant, counting: Mapping[str, Meter] | None = None) -> int:
    """What a tenant has left now: the wallet, what is held, less what was used and is not posted yet."""
    available, held = ledger.wallet(c, tenant.id, tenant.currency)
    return available + held - unposted_nano(c, yard, tenant.id, counting)


def hold_for(c: Connection, yard: Yard, tenant: Tenant, prices: Mapping[str, tuple[str, int]], now_us: int) -> None:
    """Holds a window of running for leases that are about to run: (offer, price an hour) by lease.

    As far as the wallet has it: whoever has less than a window may run for what there is. Of a tenant that pays later
    nothing is held.
    """
    if not wallets.find(c, tenant.id).prepaid:
        return
    known = charges.load(c, prices.keys(), lock=True)
    available, _ = ledger.wallet(c, tenant.id, tenant.currency)
    posted: list[Transfer] = []
    changed: list[Charge] = []
    for lease_id, (offer, price) in prices.items():
        charge = known.get(lease_id) or Charge(lease_id, tenant.id, offer, tenant.currency)
        wanted = hold_nano(price, yard.wallet_terms.hold_window_us)
        cost = Cost(charge.revenue_nano, charge.credited_nano)
        after, transfers = settle(charge, cost, wanted, available, now_us)
        available -= after.held_nano - charge.held_nano
        posted += transfers
        changed.append(after)
    ledger.post(c, posted)
    charges.save(c, changed)
