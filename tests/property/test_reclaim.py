"""Reclaiming spot leases: whole gangs, only who may go, nobody for nothing, and the waiting gang fits afterwards."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.queue import Gang, gangs_of
from gpuyard.scheduling.reclaim import Reclaim, ReclaimPolicy, plan_reclaim
from gpuyard.scheduling.running import Running, released
from queue_days import GIB, MINUTE, WHOLE, Days, ask, fleet

NOW = 1000 * MINUTE
POLICY = ReclaimPolicy()
SCHEDULER = Gangs(BestFit())


def lease(
    name: str, cards: list[str], gang: str | None = None, spot: bool = True, started: int = 0, shape: SliceShape = WHOLE
) -> Running:
    node = cards[0].rpartition("-")[0]
    return Running(name, gang or name, "s", node, tuple(cards), shape, 1000, GIB, spot=spot, started_us=started)


def reclaim(days: Days, gang: Gang, policy: ReclaimPolicy = POLICY) -> Reclaim | None:
    return plan_reclaim(SCHEDULER, days.free(), gang, days.running, NOW, policy)


def wants(members: int = 1, count: int = 1, shape: SliceShape = WHOLE) -> Gang:
    return gangs_of(ask("want", members, count, shape))[0]


@st.composite
def full_fleets(draw: st.DrawFn) -> Days:
    days = Days(fleet(draw(st.integers(1, 4)), 4))
    names = [card.uuid for node in days.empty.nodes for card in node.cards]
    for number, uuid in enumerate(names):
        for part in range(draw(st.integers(0, 2))):
            days.running.append(
                lease(
                    f"l{number}-{part}", [uuid], draw(st.sampled_from(["g1", "g2", f"own{number}-{part}"])),
                    draw(st.integers(0, 4)) > 0, draw(st.sampled_from([0, 500, 995])) * MINUTE,
                    SliceShape(12 * GIB, 500_000),
                )
            )  # fmt: skip
    return days


@settings(max_examples=150, deadline=None)
@given(days=full_fleets(), members=st.integers(1, 3), count=st.integers(1, 4), half=st.booleans())
def test_victims_are_whole_gangs_that_may_go_and_are_all_needed(
    days: Days, members: int, count: int, half: bool
) -> None:
    gang = wants(members, count, SliceShape(12 * GIB, 500_000) if half else WHOLE)
    gangs: dict[str, list[Running]] = defaultdict(list)
    for running in days.running:
        gangs[running.gang].append(running)
    allowed = [
        name
        for name, leases in gangs.items()
        if all(r.spot and NOW - r.started_us >= POLICY.minimum_run_us for r in leases)
    ]

    def fits(names: list[str]) -> bool:
        gone = [running for name in names for running in gangs[name]]
        return not SCHEDULER.plan(released(days.free(), gone), gang.members, NOW).refusals

    found = reclaim(days, gang)
    if found is None:
        assert fits([]) or not fits(allowed), "where letting all of them go would do, somebody is found"
        return
    assert set(found.victims) <= set(allowed)
    assert sorted(found.lease_ids) == sorted(r.lease_id for name in found.victims for r in gangs[name])
    assert fits(list(found.victims))
    for name in found.victims:
        gone = [other for other in found.victims if other != name]
        used = {r.node for other in found.victims for r in gangs[other]}
        assert not fits(gone) or len(used) < len(days.empty.nodes), "nobody goes for nothing"


def test_least_work_is_lost() -> None:
    days = Days(fleet(1, 2))
    young = lease("young", ["n0-0"], started=900 * MINUTE)
    old = lease("old", ["n0-1"], started=100 * MINUTE)
    days.running = [young, old]
    found = reclaim(days, wants())
    assert found is not None
    assert found.victims == ("young",)
    days.running = [young, replace(old, checkpoint_us=NOW - MINUTE)]
    found = reclaim(days, wants())
    assert found is not None
    assert found.victims == ("old",), "what was made safe a minute ago loses a minute"
    assert found.lost_card_us == 1 + 2 * MINUTE


def test_a_usable_place_is_freed_rather_than_cheap_leases() -> None:
    """The cheapest four leases sit on four nodes; the gang needs four cards of one."""
    days = Days(fleet(4, 4))
    for node in range(4):
        for card in range(4):
            started = 900 if card == 0 else 100 + node
            spot = card == 0 or node == 2
            days.running.append(lease(f"l{node}{card}", [f"n{node}-{card}"], spot=spot, started=started * MINUTE))
    found = reclaim(days, wants(1, 4))
    assert found is not None
    assert set(found.victims) == {"l20", "l21", "l22", "l23"}


def test_a_gang_goes_as_a_whole_and_is_dear_for_it() -> None:
    days = Days(fleet(2, 2))
    days.running = [
        lease("a0", ["n0-0"], "a", started=900 * MINUTE),
        lease("a1", ["n1-0"], "a", started=900 * MINUTE),
        lease("b", ["n0-1"], started=850 * MINUTE),
        lease("c", ["n1-1"], spot=False),
    ]
    found = reclaim(days, wants())
    assert found is not None
    assert found.victims == ("b",)
    found = reclaim(days, wants(1, 2))
    assert found is not None
    assert set(found.victims) == {"a", "b"}
    assert set(found.lease_ids) == {"a0", "a1", "b"}


def test_who_has_just_begun_or_was_just_reclaimed_or_has_been_told_stays() -> None:
    days = Days(fleet(1, 1))
    for change in (
        {"started_us": NOW - POLICY.minimum_run_us + 1},
        {"reclaimed_us": NOW - POLICY.cooldown_us + 1},
        {"noticed": True},
        {"spot": False},
    ):
        days.running = [replace(lease("x", ["n0-0"]), **change)]
        assert reclaim(days, wants()) is None
    days.running = [lease("x", ["n0-0"])]
    assert reclaim(days, wants()) is not None
    assert plan_reclaim(SCHEDULER, days.free(), gangs_of(ask("s", spot=True))[0], days.running, NOW, POLICY) is None


def test_processors_are_freed_too() -> None:
    days = Days(fleet(1, 4))
    days.running = [replace(lease(f"x{n}", [f"n0-{n}"]), cpu_milli=20_000) for n in range(3)]
    gang = wants()
    gang = Gang(gang.id, tuple(replace(member, cpu_milli=30_000) for member in gang.members))
    found = reclaim(days, gang)
    assert found is not None
    assert len(found.victims) == 2


def test_no_more_than_so_many_go() -> None:
    days = Days(fleet(1, 4))
    days.running = [lease(f"x{n}", [f"n0-{n}"]) for n in range(4)]
    assert reclaim(days, wants(1, 4), replace(POLICY, max_victims=3)) is None
    assert reclaim(days, wants(1, 4)) is not None


def test_several_members_find_a_place_in_one_rack() -> None:
    days = Days(fleet(8, 2))
    for node in range(8):
        days.running += [lease(f"l{node}{c}", [f"n{node}-{c}"], started=(900 - node) * MINUTE) for c in range(2)]
    found = reclaim(days, wants(3, 2))
    assert found is not None
    assert {name[1] for name in found.victims} == {"0", "1", "2"}
