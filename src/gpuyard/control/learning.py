"""Learns what all but spot want, hour by hour: the forecast that spot's limit comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpuyard.control.waiting import wanted_ppm
from gpuyard.control.yard import Yard
from gpuyard.model.leases import Lease
from gpuyard.model.workloads import Workload
from gpuyard.scheduling.spot_room import HOURS_A_WEEK, WEEKS_KEPT, hour_of
from gpuyard.store import demand


def learn_demand(yard: Yard, open_leases: Sequence[Lease], workloads: Mapping[str, Workload], now_us: int) -> None:
    """Writes down what is wanted in this hour, where it is more than was seen in it before."""
    wanted = wanted_ppm(yard, open_leases, workloads)
    with yard.store.write() as c:
        demand.see(c, hour_of(now_us), wanted, HOURS_A_WEEK * WEEKS_KEPT)
