"""Instances that are started without their cards: what that costs, and who may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Workload, WorkloadKind


def cpu_only_price_nano(yard: Yard, kind: WorkloadKind, option: PurchaseOption) -> int:
    """What such an instance costs an hour. Raises YardError `cpu_only_refused`."""
    if kind is not WorkloadKind.INSTANCE:
        raise YardError("cpu_only_refused", why="not_instance")
    if option is PurchaseOption.SPOT:
        raise YardError("cpu_only_refused", why="on_spot")
    price = yard.book.cpu_only_per_hour_nano
    if price is None:
        raise YardError("cpu_only_refused", why="no_price")
    return price


def without_price(
    yard: Yard, open_leases: Iterable[Lease], workloads: Mapping[str, Workload]
) -> dict[str, Mapping[str, object]]:
    """By waiting lease, the facts of the reason `waiting_for_slices`, where the book lost its price for a start without
    cards after that was asked for: nothing is granted that has no price."""
    if yard.book.cpu_only_per_hour_nano is not None:
        return {}
    lack = {"shortfalls": [{"lacks": "no_cpu_only_price"}], "more_nodes": 0, "ever": True}
    waiting = (lease for lease in open_leases if lease.state is LeaseState.REQUESTED)
    return {lease.id: lack for lease in waiting if workloads[lease.workload_id].cpu_only}
