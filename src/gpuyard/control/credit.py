"""Nobody runs on money that is not there: alerts while it runs out, a stop once it has, the disks kept for a while."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from gpuyard.billing.runway import crossed, runway_us
from gpuyard.control.settling import live_balance_nano
from gpuyard.control.stopping import running_of, stop_these
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.states import WorkloadState
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import SECOND_US, format_money
from gpuyard.model.workloads import Desired
from gpuyard.store import events, ledger, meters, tenants, wallets, workloads
from gpuyard.store.meters import Meter
from gpuyard.store.wallets import WalletRow


def must_have_credit(c: Connection, yard: Yard, tenant: Tenant) -> None:
    """Raises YardError `insufficient_credit` for a tenant whose wallet has nothing left: what is held for what it runs
    already cannot be spent again."""
    if tenant.credit_nano is None:
        return
    left = live_balance_nano(c, yard, tenant)
    available, _ = ledger.wallet(c, tenant.id, tenant.currency)
    if min(left, available) <= 0:
        shown = format_money(left, 9)
        raise YardError("insufficient_credit", tenant=tenant.name, balance=shown, currency=tenant.currency)


def burn_per_hour_nano(c: Connection, tenant_id: str) -> int:
    """What an hour of all that a tenant has costs now, disks of stopped ones included."""
    return sum(m.price_per_hour_nano for m in meters.open_meters(c).values() if m.tenant_id == tenant_id)


def watch_credit(yard: Yard, now_us: int) -> None:
    """Tells run-way alerts, stops those without credit, and removes the disks of those that stayed without it."""
    with yard.store.read() as c:
        limited = [tenant for tenant in tenants.listing(c) if tenant.credit_nano is not None]
        if not limited:
            return
        counting = meters.open_meters(c)
        burns = _burns(counting.values())
        waiting = {tenant.id: wallets.find(c, tenant.id) for tenant in limited}
        # A tenant that spends nothing and was told nothing has nothing new to be told.
        live = [t for t in limited if burns.get(t.id) or _was_told(waiting[t.id])]
        balances = {tenant.id: live_balance_nano(c, yard, tenant, counting) for tenant in live}
    for tenant in live:
        _watch_one(yard, tenant, balances[tenant.id], burns.get(tenant.id, 0), waiting[tenant.id], now_us)


def _was_told(row: WalletRow) -> bool:
    return row.runway_told > 0 or row.exhausted_us is not None


def _watch_one(yard: Yard, tenant: Tenant, balance: int, burn: int, row: WalletRow, now_us: int) -> None:
    runway = 0 if balance <= 0 else runway_us(balance, burn)
    alerts, told = crossed(runway, row.runway_told)
    exhausted_us = (row.exhausted_us if row.exhausted_us is not None else now_us) if balance <= 0 else None
    if (told, exhausted_us) != (row.runway_told, row.exhausted_us):
        with yard.store.write() as c:
            wallets.note(c, tenant.id, told, exhausted_us)
            if alerts and balance > 0:
                events.append(c, [_alert(tenant, alert, balance, now_us) for alert in alerts])
            if exhausted_us is not None and row.exhausted_us is None:
                events.append(c, [_exhausted(yard, tenant, now_us)])
    if exhausted_us is not None:
        stop_these(yard, running_of(yard).get(tenant.id, []), "credit_exhausted", now_us)
        if now_us - exhausted_us >= yard.wallet_terms.keep_disks_us:
            _remove_unpaid(yard, tenant, now_us)


def _burns(counting: Iterable[Meter]) -> dict[str, int]:
    found: dict[str, int] = {}
    for meter in counting:
        found[meter.tenant_id] = found.get(meter.tenant_id, 0) + meter.price_per_hour_nano
    return found


def _alert(tenant: Tenant, alert_us: int, balance: int, now_us: int) -> Event:
    data = {"below_seconds": alert_us // SECOND_US, "balance": format_money(balance, 9), "currency": tenant.currency}
    return Event("wallet.runway", tenant.id, now_us, tenant.id, data=data)


def _exhausted(yard: Yard, tenant: Tenant, now_us: int) -> Event:
    data = {"disks_kept_until_us": now_us + yard.wallet_terms.keep_disks_us}
    return Event("tenant.credit_exhausted", tenant.id, now_us, tenant.id, data=data)


def _remove_unpaid(yard: Yard, tenant: Tenant, now_us: int) -> None:
    """The tenant's stopped workloads go, disks included: they were kept as long as was promised."""
    with yard.store.read() as c:
        stopped = [
            w
            for w in workloads.of_tenant(c, tenant.id)
            if w.desired is not Desired.REMOVE and w.state is WorkloadState.STOPPED
        ]
    for workload in stopped:
        with yard.store.write() as c:
            if workloads.desired_of(c, workload.id) is not Desired.STOP:
                continue
            workloads.set_desired(c, workload.id, Desired.REMOVE, now_us)
            workloads.set_state(c, workload.id, WorkloadState.REMOVING, "unpaid", {}, workload.exit_code, now_us)
            data = {"name": workload.name, "reason": "unpaid"}
            events.append(c, [Event("workload.removing", workload.id, now_us, tenant.id, data=data)])
    if stopped:
        yard.wake.set()
