"""Whether a tenant can pay for what it is about to run, and the money that is held for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from gpuyard.control.budget_watch import must_have_budget
from gpuyard.control.credit import must_have_credit
from gpuyard.control.settling import hold_for
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import format_money
from gpuyard.model.workloads import Workload
from gpuyard.store import leases, ledger


def must_have_money(c: Connection, yard: Yard, tenant: Tenant, now_us: int) -> None:
    """Raises YardError `insufficient_credit` or `budget_exhausted`."""
    must_have_credit(c, yard, tenant)
    must_have_budget(c, yard, tenant, now_us)


def hold_for_launch(
    c: Connection, yard: Yard, tenant: Tenant, prices: Mapping[str, tuple[str, int]], now_us: int
) -> None:
    """Holds money for new leases in the transaction that makes them: two launches at once cannot count on one sum.

    Raises YardError `insufficient_credit`.
    """
    if tenant.credit_nano is None:
        return
    available, _ = ledger.wallet(c, tenant.id, tenant.currency)
    if available <= 0:
        shown = format_money(available, 9)
        raise YardError("insufficient_credit", tenant=tenant.name, balance=shown, currency=tenant.currency)
    hold_for(c, yard, tenant, prices, now_us)


def prices_of(c: Connection, workload: Workload, starting: Sequence[Lease]) -> dict[str, tuple[str, int]]:
    """What an hour of each of these leases will cost, as far as it is known: by the terms that the workload had last.
    One that never ran has none; its hold follows when its slices are granted."""
    before = leases.of_workload(c, workload.id, include_ended=True)
    terms = [lease.terms for lease in before if lease.terms is not None]
    if not terms:
        return {}
    offer, price = workload.spec.slices.offer or "custom", terms[-1].active_per_hour_nano
    return {lease.id: (offer, price) for lease in starting}
