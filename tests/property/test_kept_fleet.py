"""A fleet that is kept from plan to plan gives the plans of one that is read anew each time."""

from __future__ import annotations

import threading
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.fragmentation_aware import FragmentationAware
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import CardView, NodeView, Plan, Request, Scheduler, Snapshot
from scheduling_days import engines

GIB = 1 << 30
MEMORY = {"RTX4090": 24 * GIB, "H100": 80 * GIB}


def node(number: int, model: str, cards: int) -> NodeView:
    empty = (CardView(f"{number}-{n}", model, MEMORY[model], MEMORY[model], 1_000_000) for n in range(cards))
    return NodeView(f"n{number}", 32_000, 256 * GIB, tuple(empty))


nodes = st.lists(st.tuples(st.sampled_from(sorted(MEMORY)), st.integers(0, 4)), min_size=1, max_size=6).map(
    lambda drawn: tuple(node(number, *each) for number, each in enumerate(drawn))
)
requests = st.builds(
    Request,
    st.just("l"),
    st.builds(
        SliceShape, st.sampled_from([6, 12, 24, 40]).map(lambda n: n * GIB), st.sampled_from([100_000, 400_000, 10**6])
    ),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from([None, None, "RTX4090", "H100"]),
    st.sampled_from([500, 7000]),
    st.just(GIB),
    mode=st.sampled_from(["shared", "shared", "mps", "exclusive"]),
)
# What happens before a plan: nothing, a node is closed or opened, a lease ends, a node is there alone, a card goes.
happenings = st.tuples(st.sampled_from(["", "", "toggle", "end", "part", "card"]), st.integers(0, 5))
days = st.lists(st.tuples(st.lists(requests, max_size=4), happenings, st.booleans()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(nodes, days, st.booleans())
def test_what_is_kept_plans_as_what_is_made_anew(fleet: tuple[NodeView, ...], day, near: bool) -> None:
    for make in engines():
        kept: Scheduler = FragmentationAware(make)
        snapshot = Snapshot(1, fleet)
        for asked, (what, which), applied in day:
            snapshot, seen = _happen(snapshot, fleet, what, which)
            named = [replace(request, lease_id=f"l{number}") for number, request in enumerate(asked)]
            kept = kept.having_seen(named)  # type: ignore[attr-defined]
            anew = FragmentationAware(make, kept._arrivals)  # type: ignore[attr-defined]
            plans = [(Gangs(each) if near else each).plan(seen, named, 0) for each in (kept, anew)]
            assert plans[0] == plans[1]
            if applied and seen is snapshot:
                snapshot = _after(snapshot, plans[0], named)


def _happen(snapshot: Snapshot, fleet: tuple[NodeView, ...], what: str, which: int) -> tuple[Snapshot, Snapshot]:
    """The fleet from then on, and what is planned for now."""
    at = which % len(snapshot.nodes)
    old = snapshot.nodes[at]
    if what == "toggle":
        snapshot = snapshot.with_nodes({old.name: replace(old, schedulable=not old.schedulable)})
    elif what == "end":
        snapshot = snapshot.with_nodes({old.name: next(each for each in fleet if each.name == old.name)})
    elif what == "card" and old.cards:
        snapshot = snapshot.with_nodes({old.name: replace(old, cards=old.cards[1:])})
    return snapshot, replace(snapshot, nodes=(snapshot.nodes[at],)) if what == "part" else snapshot


def _after(snapshot: Snapshot, plan: Plan, asked: list[Request]) -> Snapshot:
    by_id, now = {request.lease_id: request for request in asked}, {node.name: node for node in snapshot.nodes}
    for placed in plan.placements:
        now[placed.node] = now[placed.node].taking(placed.card_uuids, by_id[placed.lease_id])
    return snapshot.with_nodes(now)


def test_two_who_plan_at_once_get_the_same_plan() -> None:
    asked = [Request(f"l{n}", SliceShape(6 * GIB, 250_000), 1, None, 1000, GIB) for n in range(20)]
    snapshot = Snapshot(1, tuple(node(number, "RTX4090", 4) for number in range(4)))
    scheduler = FragmentationAware(engines()[0])
    plans: list[Plan] = []
    threads = [threading.Thread(target=lambda: plans.append(scheduler.plan(snapshot, asked, 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 8
    assert all(plan == plans[0] for plan in plans)
