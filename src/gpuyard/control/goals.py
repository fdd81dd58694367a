"""What a goal (so much work by then, or for so much) comes to on the cards of this yard."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpuyard.catalog import cards as catalog
from gpuyard.control.placement import take_snapshot
from gpuyard.control.waiting import take_standing
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.slices import SliceShape
from gpuyard.model.times import to_text
from gpuyard.model.units import SHARE_WHOLE_PPM, format_money
from gpuyard.scheduling.backfill import reserve
from gpuyard.scheduling.cycle import Standing
from gpuyard.scheduling.plan import Request, Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.tiers import Goal, Offered, Tier, choose, tiers
from gpuyard.store import leases, workloads


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every tier, cheapest first, and the one that would be chosen."""

    goal: Goal
    tiers: tuple[Tier, ...]
    chosen: Tier | None


def compare(yard: Yard, goal: Goal, count: int, option: PurchaseOption | None = None) -> Comparison:
    """The tiers of this yard for a goal, on `count` whole cards of one node; of one purchase option or of both. Spot is
    chosen only where it is asked for: it may be told to go, and then is not done in time.

    Raises YardError `unknown_card_model`, and `too_many_slices` where no node has so many cards.
    """
    reference = catalog.find(goal.reference)
    goal = replace(goal, reference=reference.name)
    now_us = yard.clock.now_us()
    with yard.store.read() as c:
        known = {workload.id: workload for workload in workloads.unsettled(c)}
        open_leases = [lease for lease in leases.open_leases(c) if lease.workload_id in known]
        snapshot = take_snapshot(c, yard.roster.nodes, open_leases, known, yard.book.on_demand_nano)
        standing = take_standing(c, yard, open_leases, known, now_us)
    options = (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT) if option is None else (option,)
    offered: list[Offered] = []
    most = 0
    whole = [card for card in yard.roster.cards if card.mig is None]  # what is in MIG mode is never had whole
    for model in sorted({card.model for card in whole if yard.book.sells(card.model)}):
        row = catalog.lookup(model)
        on_one_node = max(
            sum(card.model == model and card.mig is None for card in node.cards) for node in yard.roster.nodes
        )
        most = max(most, on_one_node)
        if row is None or on_one_node < count:
            continue
        start_us = _start(yard, snapshot, standing, model, count, now_us)
        for each in options:
            price = yard.book.price_nano(model, SHARE_WHOLE_PPM, each is PurchaseOption.SPOT)
            offered.append(Offered(row, each, price, start_us, yard.book.minimum_us))
    if not offered:
        raise YardError("too_many_slices", count=count, most=most)
    found = tiers(goal, reference, offered, count)
    eligible = [tier for tier in found if tier.option is (option or PurchaseOption.ON_DEMAND)]
    return Comparison(goal, tuple(found), choose(eligible, goal))


def _start(yard: Yard, snapshot: Snapshot, standing: Standing, model: str, count: int, now_us: int) -> int | None:
    """When `count` whole cards of this model could be had: now, or when what is known to end has ended."""
    memory_bytes = min(card.memory_bytes for card in yard.roster.cards if card.model == model)
    request = Request("goal", SliceShape(memory_bytes, SHARE_WHOLE_PPM), count, model, 0, 0)
    if not yard.scheduler.plan(snapshot, (request,), now_us).refusals:
        return now_us
    gang = Gang("goal", (request,))
    found = reserve(yard.scheduler, snapshot, gang, standing.running, now_us, open_ended=False)
    return None if found is None else found.start_us


def model_for(yard: Yard, goal: Goal, count: int, option: PurchaseOption) -> str:
    """The card model that a launch with this goal gets.

    Raises YardError `goal_unreachable` where no tier keeps the goal, with the tier that comes nearest.
    """
    found = compare(yard, goal, count, option)
    if found.chosen is not None:
        return found.chosen.model
    nearest = min(found.tiers, key=lambda tier: (len(tier.misses), tier.runtime_us, tier.cost_nano))
    raise YardError(
        "goal_unreachable",
        model=nearest.model,
        finish="--" if nearest.finish_us is None else to_text(nearest.finish_us),
        cost=format_money(nearest.cost_nano),
        currency=yard.book.currency,
    )
