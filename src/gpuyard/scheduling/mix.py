"""The mix of requests that is expected, learnt from those that came. No trace is known in advance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import Engine, Typical
from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.state import Want

MOST: Final = 24  # typical requests that are kept: rare ones say more of the past than of what comes
WEIGHTS_SUM: Final = 1 << 14
_FIRST: Final = 16  # arrivals until the second look
_GROWTH_PERCENT: Final = 30  # then looks are this much further apart each time
_AT_MOST_APART: Final = 1000
_HALVE_AT: Final = 200_000  # what is counted fades: older arrivals weigh half
# Of the CPU that a card's worth of requests wants, what is kept for an idle card before CPU counts as left over.
_CPU_KEPT_PERCENT: Final = 72
# Before anything came: a whole card with the CPU that servers have per card.
PRIOR: Final = Want(cpu_milli=12_000, memory_bytes=0, slices=1, share_ppm=SHARE_WHOLE_PPM, card_memory_bytes=0)


class LearntMix:
    """Counts arrivals and tells an engine of them, at first often and then ever less."""

    def __init__(self, nodes: int, prior: Want = PRIOR) -> None:
        self._apart = max(_AT_MOST_APART, 4 * nodes)  # every look makes every cost be worked out anew
        self._counts: Counter[Want] = Counter()
        self._arrivals = self._looked_at = self._ended = 0
        self._next = 1
        self._policy: Policy | None = None
        self._prior = prior

    def tell(self, engine: Engine) -> None:
        """Gives the engine what is expected now."""
        common = self._counts.most_common(MOST) or [(self._prior, 1)]
        total = sum(count for _, count in common)
        mix = [Typical(want, max(1, count * WEIGHTS_SUM // total)) for want, count in common]
        engine.set_mix(mix, cpu_per_card_milli(self._counts or {self._prior: 1}))

    def see(self, want: Want, engine: Engine) -> None:
        """One arrival, told before it is decided."""
        self._arrivals += 1
        if want.slices:
            self._counts[want] += 1
        if self._arrivals >= self._next:
            grown = self._arrivals * (100 + _GROWTH_PERCENT) // 100
            self._next = max(_FIRST, min(grown, self._arrivals + self._apart))
            self._fade()
            self._reweigh(engine)
            self.tell(engine)

    def gone(self) -> None:
        """One lease ended."""
        self._ended += 1

    def _reweigh(self, engine: Engine) -> None:
        """Tells the engine how many of those that came since the last look have come to stay."""
        if self._policy is None:
            self._policy = engine.policy
        came = self._arrivals - self._looked_at
        engine.reweigh(self._policy.where_stay(max(0, came - self._ended) * SHARE_WHOLE_PPM // came))
        self._looked_at, self._ended = self._arrivals, 0

    def _fade(self) -> None:
        if self._counts.total() > _HALVE_AT:
            self._counts = Counter({want: count // 2 for want, count in self._counts.items() if count > 1})


def cpu_per_card_milli(counts: Mapping[Want, int]) -> int:
    """CPU that requests want per card's worth of share, in milli-cores, less what is not kept for them."""
    share = sum(want.share_sum_ppm * count for want, count in counts.items())
    cpu = sum(want.cpu_milli * count for want, count in counts.items())
    return max(1, cpu * SHARE_WHOLE_PPM // max(1, share) * _CPU_KEPT_PERCENT // 100)
