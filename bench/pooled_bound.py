"""What no scheduler can exceed under churn: the fleet as one card and one processor as large as all of them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from gpuyard.simulation.arrivals import Arrival
from gpuyard.simulation.session import WARM_UP_PERCENT
from gpuyard.simulation.traces import TraceNode, TracePod


def pooled_bound(nodes: Sequence[TraceNode], pods: Sequence[TracePod], arrivals: Sequence[Arrival]) -> float:
    """Percent of the cards in use, over time once warm, where a request is only refused when the whole fleet is full.

    Nothing is ever in pieces here, so what a real fleet loses beside it is the price of cards and nodes with borders.
    """
    cards = sum(node.cards for node in nodes) * 1_000_000
    cores = sum(node.cpu_milli for node in nodes)
    warm_us = arrivals[len(arrivals) * WARM_UP_PERCENT // 100].at_us
    ends: list[tuple[int, int, int]] = []
    share = cpu = used_ppm_us = 0
    now = warm_us

    def until(time_us: int) -> None:
        nonlocal now, used_ppm_us
        used_ppm_us += share * max(0, time_us - now)
        now = max(now, time_us)

    for arrival in arrivals:
        while ends and ends[0][0] <= arrival.at_us:
            until(ends[0][0])
            _, ended_share, ended_cpu = heapq.heappop(ends)
            share, cpu = share - ended_share, cpu - ended_cpu
        until(arrival.at_us)
        pod = pods[arrival.pod]
        asked = pod.cards * pod.share_ppm
        if share + asked <= cards and cpu + pod.cpu_milli <= cores and arrival.lasts_us is not None:
            share, cpu = share + asked, cpu + pod.cpu_milli
            heapq.heappush(ends, (arrival.at_us + arrival.lasts_us, asked, pod.cpu_milli))
    return 100 * used_ppm_us / (cards * (now - warm_us))
