"""How slices share cards: never two modes on one, whole cards at peak for who pays, and nobody refused for it but spot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.fragmentation_aware import FragmentationAware
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.plan import CardView, NodeView, Plan, Request, Scheduler, Snapshot
from gpuyard.scheduling.running import Running, released
from gpuyard.scheduling.sharing import WholeAtPeak
from gpuyard.scheduling.state import MODES
from gpuyard.scheduling.windows import Window
from scheduling_days import compiled

GIB = 1 << 30
MINUTE_US = 60_000_000
NIGHT = Window(22 * 60, 7 * 60)
NOON_US, MIDNIGHT_US = 12 * 60 * MINUTE_US, 0
QUARTER = SliceShape(6 * GIB, 250_000)
SCHEDULERS: Sequence[Scheduler] = (BestFit(), FragmentationAware(compiled()), Gangs(FragmentationAware(compiled())))
WITH_GANGS: Sequence[Scheduler] = (Gangs(BestFit()), Gangs(FragmentationAware(compiled())))


def fleet(*cards: int) -> Snapshot:
    nodes = tuple(
        NodeView(
            f"n{at}", 640_000, 640 * GIB,
            tuple(CardView(f"{at}-{n}", "RTX4090", 24 * GIB, 24 * GIB, 1_000_000) for n in range(count)),
        )
        for at, count in enumerate(cards)
    )  # fmt: skip
    return Snapshot(1, nodes)


def ask(name: str, shape: SliceShape = QUARTER, count: int = 1, **more: object) -> Request:
    return Request(name, shape, count, None, 1000, GIB, **more)  # type: ignore[arg-type]


@st.composite
def asked(draw: st.DrawFn, modes: Sequence[str] = tuple(MODES)) -> list[Request]:
    found: list[Request] = []
    for gang in range(draw(st.integers(1, 8))):
        members = draw(st.sampled_from([1, 1, 1, 2, 3]))
        shape = SliceShape(draw(st.sampled_from([6, 12, 24])) * GIB, draw(st.sampled_from([250_000, 500_000, 10**6])))
        count, mode, spot = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from(modes)), draw(st.booleans())
        group = f"g{gang}" if members > 1 else None
        found += [ask(f"{gang}-{m}", shape, count, mode=mode, spot=spot, group=group) for m in range(members)]
    return found


def on_cards(plan: Plan, requests: Sequence[Request]) -> dict[str, list[Request]]:
    by_id = {request.lease_id: request for request in requests}
    found: dict[str, list[Request]] = defaultdict(list)
    for placed in plan.placements:
        assert len(set(placed.card_uuids)) == by_id[placed.lease_id].count
        for uuid in placed.card_uuids:
            found[uuid].append(by_id[placed.lease_id])
    return found


def assert_nothing_over(plan: Plan, requests: Sequence[Request]) -> None:
    for held in on_cards(plan, requests).values():
        assert sum(request.shape.compute_ppm for request in held) <= 1_000_000
        assert sum(request.shape.memory_bytes for request in held) <= 24 * GIB
    told = [placed.lease_id for placed in plan.placements] + [refusal.lease_id for refusal in plan.refusals]
    assert sorted(told) == sorted(request.lease_id for request in requests)


@settings(max_examples=60, deadline=None)
@given(requests=asked(), inner=st.sampled_from(SCHEDULERS))
def test_slices_of_two_modes_never_lie_on_one_card_and_an_exclusive_one_lies_alone(
    requests: list[Request], inner: Scheduler
) -> None:
    plan = inner.plan(fleet(3, 2), requests, 0)
    assert_nothing_over(plan, requests)
    for held in on_cards(plan, requests).values():
        assert len({request.mode for request in held}) == 1
        assert len(held) == 1 or held[0].mode != "exclusive"


@settings(max_examples=60, deadline=None)
@given(requests=asked(("shared",)), inner=st.sampled_from(WITH_GANGS))
def test_by_day_who_pays_is_refused_nothing_that_fits_and_gangs_stay_whole(
    requests: list[Request], inner: Scheduler
) -> None:
    snapshot, day = fleet(3, 2), WholeAtPeak(inner, NIGHT)
    plan = day.plan(snapshot, requests, NOON_US)
    assert plan == day.plan(snapshot, requests, NOON_US)
    assert_nothing_over(plan, requests)
    by_id = {request.lease_id: request for request in requests}
    nodes = {node.name: node for node in snapshot.nodes}
    for placed in plan.placements:
        nodes[placed.node] = nodes[placed.node].taking(placed.card_uuids, by_id[placed.lease_id])
    left = snapshot.with_nodes(nodes)
    placed_ids = {placed.lease_id for placed in plan.placements}
    for request in requests:
        together = {each.lease_id for each in requests if each.group == request.group} if request.group else set()
        assert not together & placed_ids or together <= placed_ids
        if request.lease_id not in placed_ids and not request.spot and request.group is None:
            assert not inner.plan(left, [request], 0).placements


@settings(max_examples=40, deadline=None)
@given(requests=asked(("shared",)), inner=st.sampled_from(SCHEDULERS))
def test_at_night_it_plans_as_if_it_were_not_there(requests: list[Request], inner: Scheduler) -> None:
    snapshot = fleet(3, 2)
    assert WholeAtPeak(inner, NIGHT).plan(snapshot, requests, MIDNIGHT_US) == inner.plan(
        snapshot, requests, MIDNIGHT_US
    )


def test_by_day_four_quarters_get_a_card_each_and_the_fifth_shares() -> None:
    for inner in SCHEDULERS:
        requests = [ask(f"r{n}") for n in range(5)]
        by_day = WholeAtPeak(inner, NIGHT).plan(fleet(4), requests, NOON_US)
        assert len(on_cards(by_day, requests)) == 4
        assert not by_day.refusals
        assert [placed.terms.get("sharing") for placed in by_day.placements] == ["alone"] * 4 + [None]
        at_night = WholeAtPeak(inner, NIGHT).plan(fleet(4), requests[:4], MIDNIGHT_US)
        assert len(on_cards(at_night, requests)) == 1


def test_by_day_spot_joins_no_card_of_a_paying_lease_and_is_told_so() -> None:
    for inner in SCHEDULERS:
        day = WholeAtPeak(inner, NIGHT)
        requests = [ask("pays"), ask("spot", spot=True)]
        plan = day.plan(fleet(1), requests, NOON_US)
        assert [placed.lease_id for placed in plan.placements] == ["pays"]
        assert [lack.lacks for lack in plan.refusals[0].shortfalls] == ["other_mode"]
        assert plan.refusals[0].ever
        assert plan.refusals[0].largest_fit is None  # what is free is not for spot now: no smaller shape would do
        assert len(day.plan(fleet(1), requests, MIDNIGHT_US).placements) == 2
        assert len(day.plan(fleet(2), requests, NOON_US).placements) == 2


def test_a_card_that_was_given_back_takes_any_mode_again() -> None:
    snapshot = fleet(1)
    request = ask("a", mode="mps")
    taken = snapshot.with_nodes({"n0": snapshot.nodes[0].taking(("0-0",), request)})
    assert not taken.nodes[0].cards[0].takes(ask("b"))
    lease = Running("a", "a", "t", "n0", ("0-0",), QUARTER, 1000, GIB, mode="mps")
    assert released(taken, [lease]) == snapshot


def test_by_day_too_two_ways_of_sharing_that_are_asked_for_at_once_get_a_card_each() -> None:
    asked = [
        Request("mps", QUARTER, 1, None, 1000, GIB, mode="mps"),
        Request("usual", QUARTER, 1, None, 1000, GIB),
        Request("turns", QUARTER, 1, None, 1000, GIB, mode="time_slice"),
    ]
    for scheduler in SCHEDULERS:
        plan = WholeAtPeak(scheduler, NIGHT).plan(fleet(1), asked, NOON_US)
        assert [placed.lease_id for placed in plan.placements] == ["mps"]
        plan = WholeAtPeak(scheduler, NIGHT).plan(fleet(3), asked, NOON_US)
        assert len({placed.card_uuids for placed in plan.placements}) == 3
