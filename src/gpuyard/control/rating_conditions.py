"""What rating has to know beside the intervals, read from the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from gpuyard.billing.commitments import Commitment
from gpuyard.billing.conditions import Conditions, LeaseFacts, Reclaim, SpotHistory
from gpuyard.billing.faults import faults_of
from gpuyard.catalog import cards
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.catalog.price_terms import Upfront
from gpuyard.control.egress import transfers
from gpuyard.model.leases import Interval, PurchaseOption
from gpuyard.model.slices import FRACTIONS
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.model.workloads import WorkloadSpec
from gpuyard.store import commitments as stored
from gpuyard.store import egress, events, incidents, leases, tenants, workloads


def are_plain(c: Connection, prices: PriceHistory | None, tenant_id: str | None) -> bool:
    """Whether nothing but on-demand leases at fixed prices is to be rated: then intervals say all there is to know but
    what incidents give back, and that concerns no lease but those that they hit."""
    books = prices.books if prices is not None else ()
    if any(book.tariffs or book.discounts for book in books) or stored.any_at_all(c):
        return False
    return not leases.bought_otherwise(c, tenant_id)


def conditions_of(
    c: Connection,
    prices: PriceHistory | None,
    tenant_id: str | None,
    intervals: Sequence[Interval],
    still_open: frozenset[tuple[str, int]],
    until_us: int,
) -> Conditions:
    """Everything that the intervals of a tenant (or of all) are rated under."""
    return Conditions(
        until_us=until_us,
        history=prices,
        facts=_facts(c, tenant_id, intervals),
        commitments=tuple(commitment_of(body) for body in stored.bodies(c, tenant_id)),
        spot={offer: SpotHistory(tuple(found)) for offer, found in stored.spot_prices(c).items()},
        faults=faults_of(incidents.giving_back(c), intervals),
        reclaims=_reclaims(c, tenant_id, intervals),
        transfers=transfers(egress.of_tenant(c, tenant_id)),
        still_open=still_open,
    )


def _reclaims(c: Connection, tenant_id: str | None, intervals: Sequence[Interval]) -> tuple[Reclaim, ...]:
    """Runs that the yard took back: a lease told of it when it waits again, at the moment at which its run ended."""
    told = events.with_reason(c, "lease.requested", "reclaimed", tenant_id)
    if not told:
        return ()
    runs = {(each.lease_id, each.end_us): each.run for each in intervals if each.state is LeaseState.ACTIVE}
    return tuple(Reclaim(lease, runs[lease, at_us], at_us) for lease, at_us in told if (lease, at_us) in runs)


def _facts(c: Connection, tenant_id: str | None, intervals: Sequence[Interval]) -> dict[str, LeaseFacts]:
    options = leases.bought_otherwise(c, tenant_id)
    names = {tenant.id: tenant.name for tenant in tenants.listing(c)}
    by_workload: dict[str, LeaseFacts] = {}
    found: dict[str, LeaseFacts] = {}
    for interval in intervals:
        if interval.lease_id in found:
            continue
        if interval.workload_id not in by_workload:
            by_workload[interval.workload_id] = _of_workload(c, interval.workload_id, names.get(interval.tenant_id, ""))
        facts = by_workload[interval.workload_id]
        option = options.get(interval.lease_id, PurchaseOption.ON_DEMAND)
        found[interval.lease_id] = LeaseFacts(
            facts.card_model, facts.share_ppm, option, facts.tenant_name, tags=facts.tags, slices=facts.slices
        )
    return found


def _of_workload(c: Connection, workload_id: str, tenant_name: str) -> LeaseFacts:
    workload = workloads.get(c, workload_id)
    if workload is None:
        return LeaseFacts(tenant_name=tenant_name)
    model, share = card_and_share(workload.spec)
    tags = tuple(sorted(workload.spec.labels.items()))
    return LeaseFacts(model, share, tenant_name=tenant_name, tags=tags, slices=workload.spec.slices.count)


def card_and_share(spec: WorkloadSpec) -> tuple[str, int]:
    """The card model of a workload's slices and how much of one card each of its leases takes, all slices together."""
    wish = spec.slices
    slug, _, fraction = (wish.offer or "").rpartition("-")
    known = cards.lookup(slug) if slug else None
    if known is not None and fraction in FRACTIONS:
        return known.name, SHARE_WHOLE_PPM // FRACTIONS[fraction] * wish.count
    model = cards.lookup(wish.card_model) if wish.card_model else None
    if model is None:
        return "", 0
    return model.name, min(SHARE_WHOLE_PPM, wish.shape.share_of_card_ppm(model.memory_bytes)) * wish.count


def commitment_of(body: str) -> Commitment:
    """A commitment from what the store keeps of it."""
    values: dict[str, Any] = json.loads(body)
    return Commitment(**{**values, "upfront": Upfront(values["upfront"])})
