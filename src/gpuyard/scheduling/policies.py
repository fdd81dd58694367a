"""The policies by name, what they weigh, and how the reference policy is cut into integer steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, getcontext
from typing import Final

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.state import Want

# What `gpuyard` weighs, in the order of the kernel's `enum term`: each in ppm of a card, times its weight.
TERMS: Final = (
    "lost", "waste", "stranded_cpu", "opened_node", "order", "tier", "topology", "watts", "price",
)  # fmt: skip
WEIGHTS: Final[Mapping[str, int]] = {
    "lost": 10, "waste": 50, "stranded_cpu": 16, "opened_node": 2, "order": 8, "tier": 1000,
    "topology": 200, "watts": 1, "price": 1,
}  # fmt: skip
# What is weighed otherwise where leases end as fast as they come. Order and waste are about a fleet that only fills:
# where leases end, what is left of a card is wanted again soon, and what counts is to leave empty nodes empty.
STEADY: Final[Mapping[str, int]] = {**WEIGHTS, "waste": 0, "order": 1, "opened_node": 12}
MOST_WEIGHT: Final = 1_000_000

# Position = the number in the kernel's `enum policy`.
NAMES: Final = ("gpuyard", "fgd", "bestfit", "packing", "clustering", "dotprod", "random", "binpack-spread")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy and its number. `weights` only matter to `gpuyard`."""

    name: str
    weights: tuple[int, ...] = tuple(WEIGHTS[term] for term in TERMS)

    @classmethod
    def weighing(cls, changed: Mapping[str, int]) -> Policy:
        """`gpuyard` with these weights instead of its own. Raises KeyError for a term that there is not."""
        if unknown := changed.keys() - WEIGHTS.keys():
            raise KeyError(*unknown)
        return cls("gpuyard", tuple({**WEIGHTS, **changed}[term] for term in TERMS))

    def where_stay(self, stays_ppm: int) -> Policy:
        """The policy for a fleet in which so many of those that come are still there when as many have come again: its
        weights lie between the usual ones and `STEADY`. Weights that somebody has chosen stay."""
        if self.weights != Policy(self.name).weights:
            return self
        pairs = [(WEIGHTS[term], STEADY[term]) for term in TERMS]
        return Policy(
            self.name, tuple(steady + (usual - steady) * stays_ppm // SHARE_WHOLE_PPM for usual, steady in pairs)
        )

    def weight(self, term: str) -> int:
        """What a term is multiplied by."""
        return self.weights[TERMS.index(term)]

    @property
    def number(self) -> int:
        """What the kernel calls it."""
        return NAMES.index(self.name)

    @property
    def learns(self) -> bool:
        """Whether it is told of arrivals as they come. The reference policy is given the whole trace in advance."""
        return self.name == "gpuyard"

    @property
    def shuffles(self) -> bool:
        """Whether its order of nodes is drawn by the run's seed, as its authors do; ours is fixed."""
        return self.name != "gpuyard"


FGD_POPULAR_PERCENT: Final = 95
MOST_TYPICAL: Final = 256  # as many typical requests as the kernel has room for


def fgd_typical(wants: Iterable[Want]) -> list[tuple[Want, int]]:
    """The most frequent requests of a whole trace that make up 95 % of it, memory left aside, with their counts."""
    counts = Counter(want._replace(memory_bytes=0, card_memory_bytes=0) for want in wants)
    total, seen, typical = sum(counts.values()), 0, list[tuple[Want, int]]()
    for want, count in counts.most_common():
        typical.append((want, count))
        seen += count
        if seen * 100 >= FGD_POPULAR_PERCENT * total or len(typical) == MOST_TYPICAL:
            break
    return typical


def fgd_steps(total_weight: int) -> tuple[int, ...]:
    """From which weighted gain on the integer score is 0 to 100: floor(100 / (1 + exp(-gain / card)))."""
    getcontext().prec = 50
    steps = [-(1 << 62)]
    for score in range(1, 100):
        border = (Decimal(score) / Decimal(100 - score)).ln() * total_weight * SHARE_WHOLE_PPM
        steps.append(int(border.to_integral_value(rounding="ROUND_CEILING")))
    return (*steps, 1 << 62)
