"""How much of the fleet spot leases may take: what the others are not likely to want. Pure.

Demand of the others is learnt by hour of the week: per card model, the highest demand of each hour that was seen. What
is kept free for an hour is the 90th percentile of the same hour in the weeks seen so far. Where that hour was never
seen it is that of all hours, once a day's worth of them was seen; and never less than what is wanted now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.model.units import HOUR_US, SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.running import Running

HOURS_A_WEEK: Final = 168
WEEKS_KEPT: Final = 8
PERCENTILE: Final = 90
ENOUGH_HOURS: Final = 24  # fewer tell nothing about an hour that was never seen
ANY: Final = ""  # the key of demand that takes any model, and of the whole fleet


@dataclass(frozen=True, slots=True)
class Demand:
    """The most compute that was wanted in one hour by all but spot, of one card model."""

    hour: int  # hours since 1970
    model: str
    compute_ppm: int


def hour_of(at_us: int) -> int:
    """The hour that a moment lies in, counted from 1970; modulo 168 it is the hour of the week."""
    return at_us // HOUR_US


def percentile(values: Sequence[int], percent: int) -> int:
    """The smallest value that at least this many percent of the values do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def forecast(history: Iterable[Demand], model: str, hour: int) -> int:
    """What all but spot are likely to want of this model then, in ppm of a card; 0 where too little was seen."""
    mine = [seen for seen in history if seen.model == model]
    same = [seen.compute_ppm for seen in mine if (seen.hour - hour) % HOURS_A_WEEK == 0 and seen.hour < hour]
    if same or len(mine) >= ENOUGH_HOURS:
        return percentile(same or [seen.compute_ppm for seen in mine], PERCENTILE)
    return 0


def spot_room(
    history: Sequence[Demand], capacity_ppm: Mapping[str, int], wanted_ppm: Mapping[str, int], now_us: int
) -> dict[str, int]:
    """What spot leases may take in all: per card model, and under ANY of the whole fleet. `capacity_ppm` and
    `wanted_ppm` (what all but spot hold and wait for now) are per model. Looks at this hour and the next."""
    hour = hour_of(now_us)
    room: dict[str, int] = {}
    for model, capacity in capacity_ppm.items():
        likely = max(forecast(history, model, hour), forecast(history, model, hour + 1))
        room[model] = max(0, capacity - max(likely, wanted_ppm.get(model, 0)))
    of_any = max(forecast(history, ANY, hour), forecast(history, ANY, hour + 1), wanted_ppm.get(ANY, 0))
    room[ANY] = max(0, sum(room.values()) - of_any)
    return room


class SpotRoom:
    """What is left of the spot limit while a plan is made."""

    def __init__(self, snapshot: Snapshot, running: Iterable[Running], limit_ppm: Mapping[str, int]) -> None:
        self._left = dict(limit_ppm)
        if not self._left:
            return
        models = {card.uuid: card.model for node in snapshot.nodes for card in node.cards}
        held: dict[str, int] = defaultdict(int)
        for lease in running:
            if lease.spot:
                for uuid in lease.card_uuids:
                    held[models.get(uuid, ANY)] += lease.shape.compute_ppm
        for model in self._left:
            self._left[model] -= sum(held.values()) if model == ANY else held[model]

    def lacking(self, gang: Gang) -> int | None:
        """None where the gang may be placed, as far as the limit goes; else what is left for it, in ppm of a card."""
        if not gang.head.spot or not self._left:
            return None
        left = min(self._left.get(key, SHARE_WHOLE_PPM << 20) for key in _keys(gang))
        return left if left < gang.amount.compute_ppm else None

    def take(self, gang: Gang) -> None:
        """The gang was placed."""
        if gang.head.spot:
            for key in _keys(gang):
                if key in self._left:
                    self._left[key] -= gang.amount.compute_ppm


def _keys(gang: Gang) -> set[str]:
    return {ANY, gang.head.card_model or ANY}
