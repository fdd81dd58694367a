"""Learns from what comes: how much is wanted in each hour, for the limit of spot, and what kinds of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gpuyard.control.waiting import wanted_ppm
from gpuyard.control.yard import Yard
from gpuyard.model.leases import Lease
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Workload, WorkloadSpec
from gpuyard.scheduling.mig_slices import ONLY_MIG
from gpuyard.scheduling.plan import Learning, Request
from gpuyard.scheduling.spot_room import HOURS_A_WEEK, WEEKS_KEPT, hour_of
from gpuyard.store import arrivals, demand

ARRIVALS_RECALLED: Final = 4_000  # about as many as the scheduler keeps; older ones have faded anyway


def learn_demand(yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now_us: int) -> None:
    """Writes down what is wanted in this hour, where it is more than was seen in it before."""
    wanted = wanted_ppm(yard, open_leases, workloads)
    with yard.store.write() as c:
        demand.see(c, hour_of(now_us), wanted, HOURS_A_WEEK * WEEKS_KEPT)


def recall_arrivals(yard: Yard) -> None:
    """Tells the scheduler of a yard that starts what came before: the leases are the record, so nothing else is kept.

    Those that wait now are not told of a second time when they are placed.
    """
    if not isinstance(yard.scheduler, Learning):
        return
    with yard.store.read() as c:
        newest = arrivals.newest(c, ARRIVALS_RECALLED)
    yard.arrived = frozenset(lease_id for lease_id, state, _ in newest if state is LeaseState.REQUESTED)
    came = [_request(spec) for _, _, spec in reversed(newest)]
    if came:
        yard.scheduler = yard.scheduler.having_seen(came)


def _request(spec: WorkloadSpec) -> Request:
    wish = spec.slices
    return Request(
        "",
        wish.shape,
        wish.count,
        wish.card_model,
        spec.cpu_milli,
        spec.memory_bytes,
        mode=ONLY_MIG if wish.mig else "shared",
    )
