"""Reads the energy counters of cards once a minute, and keeps what they took hour by hour.

A counter and what follows from it are written in one transaction: a yard that is killed counts nothing twice. What a
card took while nobody read its counter is spread over that time.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuyard.control.yard import Yard
from gpuyard.model.units import HOUR_US
from gpuyard.store import energy


def read_energy(yard: Yard, now_us: int) -> None:
    """Nothing where no card of this machine tells."""
    said = yard.card_energy()
    if not said:
        return
    with yard.store.write(tells=False) as c:
        before = energy.counters(c)
        taken: list[tuple[str, int, int, int]] = []
        for uuid, millijoules in said.items():
            if uuid not in before:
                continue
            since_us, last = before[uuid]
            if millijoules >= last and now_us > since_us:  # less: the driver was loaded anew, and counts from nothing
                taken += [(uuid, *part) for part in spread(since_us, now_us, millijoules - last)]
        energy.keep(c, now_us, said, taken)


def spread(from_us: int, until_us: int, millijoules: int) -> Iterator[tuple[int, int, int]]:
    """(hour, millijoules, microseconds) of a span: as even as whole millijoules can be, and all of them."""
    told = 0
    for hour in range(from_us // HOUR_US, -(-until_us // HOUR_US)):
        start_us, end_us = max(from_us, hour * HOUR_US), min(until_us, (hour + 1) * HOUR_US)
        so_far = millijoules * (end_us - from_us) // (until_us - from_us)
        yield hour, so_far - told, end_us - start_us
        told = so_far
