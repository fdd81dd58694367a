"""A deadline or a budget instead of a card model: costs and ends are exact, and the choice is the stated one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.catalog import cards as catalog
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.units import HOUR_US, NANO
from gpuyard.scheduling.tiers import Goal, Offered, choose, rates, tiers

MINUTE = 60_000_000
REFERENCE = catalog.find("RTX4090")


def offer(
    model: str, price: str, start_us: int | None = 0, option: PurchaseOption = PurchaseOption.ON_DEMAND
) -> Offered:
    return Offered(catalog.find(model), option, int(Decimal(price) * NANO), start_us, MINUTE)


OFFERS = [offer("RTX4090", "0.60"), offer("H100", "4.50"), offer("L4", "0.50"), offer("H200", "3.80", None)]


def test_the_reference_takes_as_long_as_was_said_and_costs_its_price() -> None:
    (tier,) = tiers(Goal("RTX4090", 10 * HOUR_US), REFERENCE, [OFFERS[0]], 1)
    assert (tier.runtime_us, tier.cost_nano, tier.finish_us) == (10 * HOUR_US, 6 * NANO, 10 * HOUR_US)
    (tier,) = tiers(Goal("RTX4090", 10 * HOUR_US), REFERENCE, [OFFERS[0]], 4)
    assert (tier.runtime_us, tier.cost_nano) == (2.5 * HOUR_US, 6 * NANO)


def test_a_faster_card_is_done_sooner_by_the_ratio_of_the_published_rates() -> None:
    found = {tier.model: tier for tier in tiers(Goal("RTX4090", 10 * HOUR_US), REFERENCE, OFFERS, 1)}
    ours, theirs = rates(catalog.find("H100"), REFERENCE)
    assert ours > 4 * theirs
    assert found["H100"].runtime_us == -(-10 * HOUR_US * theirs // ours)
    assert found["L4"].runtime_us > 10 * HOUR_US
    assert found["H200"].finish_us is None


def test_with_a_deadline_the_cheapest_that_keeps_it() -> None:
    late = Goal("RTX4090", 10 * HOUR_US, deadline_us=11 * HOUR_US)
    soon = Goal("RTX4090", 10 * HOUR_US, deadline_us=4 * HOUR_US)
    never = Goal("RTX4090", 10 * HOUR_US, deadline_us=1)
    chosen = [choose(tiers(goal, REFERENCE, OFFERS, 1), goal) for goal in (late, soon, never)]
    assert [tier and tier.model for tier in chosen] == ["RTX4090", "H100", None]
    misses = {tier.model: tier.misses for tier in tiers(soon, REFERENCE, OFFERS, 1)}
    assert misses == {"RTX4090": ("deadline",), "L4": ("deadline",), "H100": (), "H200": ("unknown_start",)}


def test_with_a_budget_the_one_done_first_within_it() -> None:
    rich = Goal("RTX4090", 10 * HOUR_US, budget_nano=100 * NANO)
    poor = Goal("RTX4090", 10 * HOUR_US, budget_nano=1)
    assert [tier and tier.model for tier in (choose(tiers(g, REFERENCE, OFFERS, 1), g) for g in (rich, poor))] == [
        "H100",
        None,
    ]


def test_a_minimum_is_paid_by_short_work_too() -> None:
    (tier,) = tiers(Goal("RTX4090", 1), REFERENCE, [OFFERS[0]], 1)
    assert tier.cost_nano == 10_000_000


@given(st.integers(1, 10**15), st.integers(1, 64), st.sampled_from(sorted(catalog.load())))
def test_costs_are_never_less_than_what_is_used_and_more_work_never_costs_less(
    work: int, count: int, model: str
) -> None:
    def one(amount: int) -> tuple[int, int]:
        (tier,) = tiers(Goal("RTX4090", amount), REFERENCE, [offer(model, "1.23")], count)
        assert tier.cost_nano * HOUR_US >= tier.price_per_hour_nano * tier.runtime_us
        assert tier.cost_nano % 1000 == 0
        return tier.runtime_us, tier.cost_nano

    assert one(work) <= one(work + 1000)


@pytest.mark.parametrize("model", sorted(catalog.load()))
def test_every_model_can_be_compared_with_every_other(model: str) -> None:
    for other in catalog.load().values():
        assert min(rates(catalog.find(model), other)) > 0
