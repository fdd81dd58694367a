"""A deadline or a budget instead of a card model: what each tier would cost and when it would be done. Pure.

Work is given as card-hours of a reference model. A tier does it faster or slower by the ratio of the published rates of
dense FP16 matrix arithmetic, or of FP32 where one of the two has none; several cards are taken to share it without
loss. So the figures are for comparing tiers, and as good as the work is bound by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.catalog.cards import CardModel
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import HOUR_US

MICRO_NANO: Final = 1000  # costs are rounded up to a millionth of the currency, as bills have no more places


@dataclass(frozen=True, slots=True)
class Goal:
    """So much work, to be done by then or for so much. `work_card_us`: card-microseconds of the reference model."""

    reference: str
    work_card_us: int
    deadline_us: int | None = None
    budget_nano: int | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """A card model that is here: its price per card and hour, and when so many cards could be had (None: unknown)."""

    model: CardModel
    option: PurchaseOption
    price_per_hour_nano: int
    start_us: int | None
    minimum_us: int


@dataclass(frozen=True, slots=True)
class Tier:
    """What the work comes to on one card model under one purchase option. `misses`: what of the goal it does not keep
    (deadline, budget, unknown_start)."""

    model: str
    option: PurchaseOption
    count: int
    price_per_hour_nano: int  # of all cards
    start_us: int | None
    runtime_us: int
    finish_us: int | None
    cost_nano: int
    misses: tuple[str, ...]


def tiers(goal: Goal, reference: CardModel, offered: Iterable[Offered], count: int) -> list[Tier]:
    """Every tier, the cheapest first."""
    found = [_tier(goal, reference, each, count) for each in offered]
    return sorted(found, key=lambda tier: (tier.cost_nano, tier.runtime_us, tier.model, tier.option))


def _tier(goal: Goal, reference: CardModel, offered: Offered, count: int) -> Tier:
    ours, theirs = rates(offered.model, reference)
    runtime_us = -(-goal.work_card_us * theirs // (ours * count))
    price = offered.price_per_hour_nano * count
    cost = -(-price * max(runtime_us, offered.minimum_us) // (HOUR_US * MICRO_NANO)) * MICRO_NANO
    finish = None if offered.start_us is None else offered.start_us + runtime_us
    misses: list[str] = []
    if goal.deadline_us is not None and finish is None:
        misses.append("unknown_start")
    if goal.deadline_us is not None and finish is not None and finish > goal.deadline_us:
        misses.append("deadline")
    if goal.budget_nano is not None and cost > goal.budget_nano:
        misses.append("budget")
    return Tier(
        offered.model.name, offered.option, count, price, offered.start_us, runtime_us, finish, cost, tuple(misses)
    )


def rates(model: CardModel, reference: CardModel) -> tuple[int, int]:
    """The rates of both, in the same unit: dense FP16 where both publish it, else FP32."""
    if model.fp16_dense_gflops is not None and reference.fp16_dense_gflops is not None:
        return model.fp16_dense_gflops, reference.fp16_dense_gflops
    return model.fp32_gflops, reference.fp32_gflops


def choose(found: Sequence[Tier], goal: Goal) -> Tier | None:
    """With a deadline the cheapest that keeps it; with a budget alone the one done first within it; with neither the
    cheapest. None where no tier keeps the goal."""
    able = [tier for tier in found if not tier.misses]
    if not able:
        return None
    if goal.deadline_us is None and goal.budget_nano is not None:
        far = 1 << 62
        return min(able, key=lambda tier: (tier.finish_us or far, tier.runtime_us, tier.cost_nano, tier.model))
    return min(able, key=lambda tier: (tier.cost_nano, tier.runtime_us, tier.model))
