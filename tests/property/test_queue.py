"""The queue: quotas are kept, nobody starves past the bound, gangs are whole, and no card is ever over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.model.tenants import Share
from gpuyard.model.units import HOUR_US
from gpuyard.placing import find_scheduler
from gpuyard.scheduling.backfill import gone_in_time
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.cycle import Standing, decide
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import Scheduler
from gpuyard.scheduling.queue import Amount, QueuePolicy, Usage, gangs_of, order
from gpuyard.scheduling.spot_room import ANY, Demand, forecast, hour_of, percentile, spot_room
from queue_days import GIB, MINUTE, Days, ask, fleet

CARD = 1_000_000

arrivals = st.lists(
    st.tuples(
        st.integers(0, 20),  # minutes until the next
        st.integers(1, 5),  # members
        st.integers(1, 3),  # cards of each
        st.sampled_from([24, 12, 6]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 3),  # priority
        st.booleans(),  # spot
        st.sampled_from([None, 5, 30, 90]),
    ),
    max_size=25,
)
quotas = st.builds(
    Share,
    weight=st.integers(1, 4),
    quota_compute_ppm=st.none() | st.integers(0, 6).map(lambda cards: cards * CARD),
    quota_memory_bytes=st.none() | st.integers(0, 144).map(lambda gib: gib * GIB),
    may_borrow=st.booleans(),
)


@pytest.mark.parametrize("scheduler", [Gangs(BestFit()), find_scheduler()], ids=["best fit", "kernel"])
@settings(max_examples=60, deadline=None)
@given(
    plan=arrivals,
    shares=st.fixed_dictionaries({}, optional={"a": quotas, "b": quotas}),
    room=st.none() | st.integers(0, 8),
)
def test_random_days_keep_every_limit(
    plan: list, shares: dict[str, Share], room: int | None, scheduler: Scheduler
) -> None:
    limit = {} if room is None else {ANY: room * CARD}
    days = Days(fleet(), shares, QueuePolicy(starve_us=HOUR_US, gangs_a_cycle=8), limit, scheduler=scheduler)
    for number, (minutes, members, count, gib, tenant, priority, spot, end) in enumerate(plan):
        shape = SliceShape(gib * GIB, gib * CARD // 24)
        days.waiting += ask(
            f"w{number}",
            members,
            count,
            shape,
            tenant,
            priority,
            spot,
            days.now_us,
            None if end is None else end * MINUTE,
        )
        days.tick(minutes)
        if room is not None:
            spot_ppm = sum(r.shape.compute_ppm * len(r.card_uuids) for r in days.running if r.spot)
            assert spot_ppm <= room * CARD


@settings(max_examples=25, deadline=None)
@given(
    members=st.integers(2, 8),
    small=st.lists(st.tuples(st.integers(1, 2), st.sampled_from([5, 20, 60])), min_size=5, max_size=30),
    priority=st.integers(0, 9),
)
def test_a_large_gang_starts_within_the_bound_whatever_else_comes(
    members: int, small: list[tuple[int, int]], priority: int
) -> None:
    """Endless small jobs of a higher tier and of another tenant: once past the bound, the gang is next and waits only
    for what runs."""
    policy = QueuePolicy(starve_us=2 * HOUR_US)
    days = Days(fleet(), {}, policy)
    days.waiting += ask("warm", 8, 1, tenant="b", limit_us=30 * MINUTE)
    days.tick()
    days.waiting += ask("gang", members, 1, tenant="a", at_us=days.now_us, limit_us=60 * MINUTE)
    asked_us, number = days.now_us, 0
    while "gang-0" not in days.started:
        for count, minutes in small:
            if sum(request.tenant_id == "b" for request in days.waiting) < 12:
                number += 1
                name = f"s{number}"
                days.waiting += ask(
                    name, 1, count, tenant="b", priority=priority, at_us=days.now_us, limit_us=minutes * MINUTE
                )
        days.tick(5)
        longest = 60 * MINUTE
        assert days.now_us - asked_us <= policy.starve_us + longest + 5 * MINUTE, "starved past the bound"


def test_leases_without_an_end_do_not_keep_a_gang_out_that_waited_past_the_bound() -> None:
    """What ends by itself one day is not given to others again: the fleet drains for the gang."""
    days = Days(fleet(1, 4), {}, QueuePolicy(starve_us=HOUR_US))
    for n in range(4):
        days.waiting += ask(f"u{n}", tenant="b")
    days.tick()
    days.waiting += ask("gang", 2, 2, tenant="a", at_us=days.now_us)
    days.tick(61)
    for n in range(4):
        days.running = [lease for lease in days.running if lease.lease_id != f"u{n}-0"]
        days.waiting += ask(f"late{n}", tenant="b", priority=9, at_us=days.now_us)
        days.tick()
    assert {"gang-0", "gang-1"} <= set(days.started)
    assert not any(name.startswith("late") for name in days.started)


def test_only_what_ends_in_time_goes_before_a_reserved_gang() -> None:
    days = Days(fleet(1, 4))
    days.waiting += ask("long", 1, 3, limit_us=60 * MINUTE)
    days.tick()
    days.waiting += ask("gang", 2, 2, at_us=days.now_us, limit_us=10 * MINUTE)
    days.waiting += ask("short", 1, 1, at_us=days.now_us + 2, limit_us=20 * MINUTE)
    days.waiting += ask("endless", 1, 1, at_us=days.now_us + 1)
    decision = days.tick()
    assert "short-0" in days.started
    assert "endless-0" not in days.started
    (reservation,) = decision.reservations
    assert (reservation.gang.id, reservation.start_us) == ("gang", 61 * MINUTE)
    refusal = next(r for r in decision.plan.refusals if r.lease_id == "endless-0")
    assert refusal.shortfalls[0].lacks == "reserved"
    days.tick(60)
    assert {"gang-0", "gang-1"} <= set(days.started)


def test_what_can_never_fit_keeps_nobody_waiting() -> None:
    days = Days(fleet(1, 2), {}, QueuePolicy(starve_us=0))
    days.waiting += ask("huge", 1, 3) + ask("small")
    days.tick()
    assert set(days.started) == {"small-0"}


def test_a_burst_of_one_tenant_does_not_go_before_the_first_of_another() -> None:
    days = Days(fleet(1, 4))
    for n in range(10):
        days.waiting += ask(f"burst{n}", tenant="a", at_us=0)
    days.waiting += ask("one", tenant="b", at_us=1) + ask("two", tenant="b", at_us=2)
    days.tick()
    assert {"one-0", "two-0"} <= set(days.started)


def test_shares_follow_weights() -> None:
    days = Days(fleet(2, 6), {"a": Share(weight=3), "b": Share(weight=1)})
    for n in range(20):
        days.waiting += ask(f"a{n}", tenant="a") + ask(f"b{n}", tenant="b")
    days.tick()
    assert sum(name.startswith("a") for name in days.started) == 9


def test_what_is_lent_goes_back_to_its_owner_first() -> None:
    shares = {"a": Share(quota_compute_ppm=2 * CARD), "b": Share(quota_compute_ppm=2 * CARD)}
    days = Days(fleet(1, 4), shares)
    days.waiting += [request for n in range(4) for request in ask(f"a{n}", tenant="a", limit_us=(n + 1) * 10 * MINUTE)]
    days.tick()
    assert len(days.running) == 4, "what is idle may be borrowed"
    days.waiting += ask("more", tenant="a", priority=3, at_us=days.now_us) + ask("b0", tenant="b", at_us=days.now_us)
    days.tick(10)
    assert "b0-0" in days.started, "within its quota goes before a higher tier beyond its own"
    assert "more-0" not in days.started


def test_who_may_not_borrow_is_told_that_the_quota_is_full() -> None:
    days = Days(fleet(), {"a": Share(quota_compute_ppm=CARD, may_borrow=False)})
    days.waiting += ask("one") + ask("two") + ask("cheap", spot=True)
    decision = days.tick()
    assert set(days.started) == {"one-0", "cheap-0"}
    (refusal,) = decision.plan.refusals
    assert refusal.shortfalls[0].lacks == "quota"


def test_waiting_lifts_a_tier() -> None:
    days = Days(fleet(1, 1), {}, QueuePolicy(age_us=10 * MINUTE, starve_us=1000 * MINUTE))
    days.waiting += ask("now", limit_us=45 * MINUTE)
    days.tick()
    days.waiting += ask("low", priority=0, at_us=0)
    days.waiting += ask("high", tenant="b", priority=3, at_us=45 * MINUTE)
    days.tick(45)
    assert "low-0" in days.started


def test_work_in_one_cycle_is_bounded_and_the_rest_is_told_so() -> None:
    days = Days(fleet(1, 4), {}, QueuePolicy(gangs_a_cycle=3))
    for n in range(6):
        days.waiting += ask(f"w{n}", at_us=n)
    decision = days.tick()
    assert len(days.started) == 3
    assert {r.shortfalls[0].lacks for r in decision.plan.refusals} == {"queued"}
    days.tick()
    assert len(days.started) == 4


@settings(max_examples=60, deadline=None)
@given(arrivals)
def test_the_order_holds_every_gang_once(plan: list) -> None:
    requests = []
    for number, (minutes, members, count, _, tenant, priority, spot, _) in enumerate(plan):
        requests += ask(f"w{number}", members, count, tenant=tenant, priority=priority, spot=spot, at_us=minutes)
    gangs = gangs_of(requests)
    capacity = Amount(8 * CARD, 192 * GIB, 1000, GIB)
    found = order(gangs, {}, Usage.of(()), capacity, HOUR_US, QueuePolicy())
    assert sorted(gang.id for gang in found) == sorted(gang.id for gang in gangs)


def test_the_forecast_is_the_same_hour_of_other_weeks() -> None:
    week = 168
    history = [Demand(1000 + w * week, "H100", 100 * (w + 1)) for w in range(10)] + [Demand(1001, "H100", 7)]
    assert forecast(history, "H100", 1000 + 10 * week) == 900
    assert forecast(history, "H100", 1002 + 10 * week) == 0, "too little was seen to tell of other hours"
    day = [Demand(2000 + hour, "L40S", hour) for hour in range(24)]
    assert forecast(day, "L40S", 2100) == 21, "an hour never seen: as all hours"
    assert forecast(history, "H200", 1000) == 0
    assert percentile([1], 90) == 1
    now_us = (1000 + 10 * week) * HOUR_US
    assert hour_of(now_us) == 1000 + 10 * week
    room = spot_room(history, {"H100": 1500, "L4": 100}, {"L4": 30, ANY: 50}, now_us)
    assert room == {"H100": 600, "L4": 70, ANY: 620}


def test_a_gang_with_an_unknown_end_is_never_gone_in_time() -> None:
    days = Days(fleet(1, 1))
    days.waiting += ask("now", limit_us=10 * MINUTE)
    days.tick()
    requests = ask("next", limit_us=MINUTE)
    decision = decide(Gangs(BestFit()), days.free(), requests, Standing(tuple(days.running)), days.now_us)
    assert decision.reservations
    assert not gone_in_time(gangs_of(ask("x"))[0], decision.reservations, days.now_us)
    assert gone_in_time(gangs_of(ask("x", limit_us=MINUTE))[0], decision.reservations, days.now_us)
