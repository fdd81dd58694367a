"""Slices of cards in MIG mode: no plan books what the hardware cannot make, and none refuses what it could."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.catalog import cards, mig
from gpuyard.model.mig import MigCard, MigCut, MigPlace, MigProfile
from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.fragmentation_aware import FragmentationAware
from gpuyard.scheduling.gangs import Gangs
from gpuyard.scheduling.mig_slices import MigSlices
from gpuyard.scheduling.plan import CardView, NodeView, Plan, Request, Scheduler, Snapshot
from gpuyard.scheduling.running import Running, released
from gpuyard.scheduling.sharing import WholeAtPeak
from gpuyard.scheduling.windows import Window
from scheduling_days import compiled

GIB, MIB = 1 << 30, 1 << 20
MODEL = cards.find("H100")
PROFILES = {profile.name: profile for profile in mig.profiles_of(MODEL)}
SCHEDULERS: Sequence[Scheduler] = (
    MigSlices(BestFit()),
    Gangs(MigSlices(FragmentationAware(compiled()))),
    WholeAtPeak(Gangs(MigSlices(FragmentationAware(compiled()))), Window(22 * 60, 7 * 60)),
)
NOON_US = 12 * 3600 * 1_000_000


def card(name: str, taken: Iterable[MigPlace] = ()) -> CardView:
    """An H100 in MIG mode with these instances of others on it."""
    there = tuple(taken)
    cut = MigCard(name, True, tuple(PROFILES.values()), there)
    held = [cut.shape(found) for place in there if (found := cut.profile(place.profile_id)) is not None]
    free = MODEL.memory_bytes - sum(shape.memory_bytes for shape in held)
    return CardView(name, "H100", MODEL.memory_bytes, free, 10**6 - sum(s.compute_ppm for s in held), mig=cut)


def whole(name: str, model: str = "H100") -> CardView:
    memory = cards.find(model).memory_bytes
    return CardView(name, model, memory, memory, 10**6)


def fleet(*of_nodes: Sequence[CardView], cpu_milli: int = 64_000) -> Snapshot:
    return Snapshot(1, tuple(NodeView(f"n{at}", cpu_milli, 640 * GIB, tuple(c)) for at, c in enumerate(of_nodes)))


def ask(name: str, profile: str = "1g.10gb", **more: object) -> Request:
    found = PROFILES[profile]
    shape = SliceShape(found.memory_bytes, found.compute_slices * 10**6 // 7)
    return Request(name, shape, 1, "H100", 1000, GIB, **more)  # type: ignore[arg-type]


def can_be_made(instances: Sequence[tuple[MigProfile, int]]) -> bool:
    """What NVIDIA's driver takes on one card, worked out by slots and by nothing that plans."""
    slots = [slot for profile, start in instances for slot in range(start, start + profile.size)]
    many = Counter(profile.name for profile, _ in instances)
    return (
        len(slots) == len(set(slots))
        and all(slot < 8 for slot in slots)
        and sum(profile.compute_slices for profile, _ in instances) <= 7
        and all(start in profile.starts for profile, start in instances)
        and all(many[profile.name] <= profile.most for profile, _ in instances)
    )


def on_card(snapshot: Snapshot, plan: Plan, uuid: str) -> list[tuple[MigProfile, int]]:
    by_id = {profile.id: profile for profile in PROFILES.values()}
    found = next(each for node in snapshot.nodes for each in node.cards if each.uuid == uuid)
    there = [] if found.mig is None else list(found.mig.taken)
    there += [placed.mig.place for placed in plan.placements if placed.card_uuids == (uuid,) and placed.mig is not None]
    return [(by_id[place.profile_id], place.start) for place in there]


@st.composite
def instances(draw: st.DrawFn) -> tuple[MigPlace, ...]:
    """Any that one card can have, as somebody may have made them by hand."""
    found: list[tuple[MigProfile, int]] = []
    for profile in draw(st.lists(st.sampled_from(list(PROFILES.values())), max_size=4)):
        start = draw(st.sampled_from(profile.starts))
        if can_be_made([*found, (profile, start)]):
            found.append((profile, start))
    return tuple(MigPlace(profile.id, start, profile.size) for profile, start in found)


@st.composite
def asked(draw: st.DrawFn) -> list[Request]:
    found: list[Request] = []
    for gang in range(draw(st.integers(1, 10))):
        members = draw(st.sampled_from([1, 1, 1, 2, 3]))
        profile, mode = draw(st.sampled_from(list(PROFILES))), draw(st.sampled_from(["shared", "mig", "exclusive"]))
        memory = draw(st.sampled_from([0, 1, 3 * GIB]))
        model, count = draw(st.sampled_from(["H100", "H100", None])), draw(st.sampled_from([1, 1, 1, 2]))
        for member in range(members):
            request = ask(f"{gang}-{member}", profile, group=f"g{gang}" if members > 1 else None, mode=mode)
            shape = replace(request.shape, memory_bytes=request.shape.memory_bytes - memory)
            found.append(replace(request, shape=shape, card_model=model, count=count, spot=draw(st.booleans())))
    return found


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SCHEDULERS), instances(), instances(), asked(), st.booleans())
def test_no_plan_books_what_a_card_cannot_be_cut_into(
    scheduler: Scheduler, one: tuple[MigPlace, ...], other: tuple[MigPlace, ...], requests: list[Request], more: bool
) -> None:
    snapshot = fleet([card("a", one), whole("w")], [card("b", other)], [whole("x", "RTX4090")] if more else [])
    plan = scheduler.plan(snapshot, requests, NOON_US)
    by_id = {request.lease_id: request for request in requests}
    assert {p.lease_id for p in plan.placements} | {r.lease_id for r in plan.refusals} == set(by_id)
    for uuid in ("a", "b"):
        assert can_be_made(on_card(snapshot, plan, uuid))
    for placed in plan.placements:
        request = by_id[placed.lease_id]
        on_mig = bool({"a", "b"} & set(placed.card_uuids))
        assert (placed.mig is not None) == on_mig
        assert request.mode != "mig" or on_mig
        if placed.mig is not None:
            profile = PROFILES[placed.mig.profile]
            assert request.count == 1
            assert profile.memory_bytes >= request.shape.memory_bytes
            assert profile.compute_slices * 10**6 >= request.shape.compute_ppm * 7
    for group in {request.group for request in requests} - {None}:
        members = {request.lease_id for request in requests if request.group == group}
        if not isinstance(scheduler, MigSlices):
            assert members <= {p.lease_id for p in plan.placements} or not members & {
                p.lease_id for p in plan.placements
            }


@settings(deadline=None, max_examples=60)
@given(instances(), st.lists(st.sampled_from(list(PROFILES)), max_size=12))
def test_one_card_refuses_only_what_has_no_place_on_it(there: tuple[MigPlace, ...], wanted: list[str]) -> None:
    snapshot = fleet([card("a", there)])
    requests = [ask(f"{n}", name) for n, name in enumerate(wanted)]
    placed = {p.lease_id: p for p in MigSlices(BestFit()).plan(snapshot, requests, 0).placements}
    by_id = {profile.id: profile for profile in PROFILES.values()}
    now = [(by_id[place.profile_id], place.start) for place in there]
    for request in requests:
        least = [p for p in PROFILES.values() if p.memory_bytes >= request.shape.memory_bytes]
        least = [p for p in least if p.compute_slices * 10**6 >= request.shape.compute_ppm * 7]
        smallest = min(least, key=lambda p: (p.size, p.compute_slices, p.id))
        possible = [start for start in smallest.starts if can_be_made([*now, (smallest, start)])]
        assert (request.lease_id in placed) == bool(possible)
        if possible:
            cut = placed[request.lease_id].mig
            assert cut is not None
            assert (cut.profile, cut.place.start in possible) == (smallest.name, True)
            now.append((smallest, cut.place.start))


def test_the_places_of_small_ones_leave_what_a_large_one_needs() -> None:
    for order in (
        ("1g.10gb", "2g.20gb", "4g.40gb"),
        ("2g.20gb", "1g.10gb", "4g.40gb"),
        ("1g.10gb", "1g.20gb", "4g.40gb"),
    ):
        plan = MigSlices(BestFit()).plan(fleet([card("a")]), [ask(name, name) for name in order], 0)
        assert len(plan.placements) == 3, order


def test_an_instance_comes_before_a_whole_card_but_not_before_a_smaller_model() -> None:
    first = MigSlices(BestFit()).plan(fleet([whole("w"), card("a")]), [ask("l")], 0)
    assert first.placements[0].card_uuids == ("a",)
    anywhere = replace(ask("l"), card_model=None)
    second = MigSlices(BestFit()).plan(fleet([whole("w", "RTX4090"), card("a")]), [anywhere], 0)
    assert second.placements[0].card_uuids == ("w",)
    full = [replace(anywhere, lease_id=f"{n}", shape=SliceShape(9000 * MIB, 142_857)) for n in range(4)]
    third = MigSlices(BestFit()).plan(fleet([whole("w", "RTX4090"), card("a")]), full, 0)
    assert Counter(placed.card_uuids for placed in third.placements) == {("w",): 2, ("a",): 2}


@pytest.mark.parametrize(
    ("request_", "lacks"),
    [
        (replace(ask("l"), shape=SliceShape(MODEL.memory_bytes, 10**6)), "mig_too_large"),
        (replace(ask("l"), count=2), "mig_one_slice"),
        (replace(ask("l"), cpu_milli=65_000), "no_cpu"),
        (ask("l", "4g.40gb"), "mig_no_place"),
    ],
)
def test_a_refusal_says_what_the_card_lacks(request_: Request, lacks: str) -> None:
    busy = card("a", [MigPlace(PROFILES["1g.10gb"].id, 0, 1)])
    plan = MigSlices(BestFit()).plan(fleet([busy]), [request_], 0)
    assert [shortfall.lacks for shortfall in plan.refusals[0].shortfalls] == [lacks]
    assert plan.refusals[0].ever == (lacks in ("no_cpu", "mig_no_place"))


def test_the_largest_that_fits_is_told_as_the_instance_that_it_would_be() -> None:
    busy = card("a", [MigPlace(PROFILES["1g.10gb"].id, 0, 1)])
    plan = MigSlices(BestFit()).plan(fleet([busy]), [ask("l", "4g.40gb")], 0)
    assert plan.refusals[0].largest_fit == SliceShape(40192 * MIB, 428_571)


def test_what_a_lease_gives_back_is_its_place() -> None:
    cut = MigCut("3g.40gb", MigPlace(PROFILES["3g.40gb"].id, 4, 4))
    before = fleet([card("a")])
    node = before.nodes[0].taking(("a",), ask("l", "3g.40gb"), cut)
    now = before.with_nodes({"n0": node})
    holds = Running("l", "l", "t", "n0", ("a",), ask("l", "3g.40gb").shape, 1000, GIB, mig=cut)
    assert released(now, [holds]) == before
    assert released(now, [holds, holds]).nodes[0].cards[0].mig == before.nodes[0].cards[0].mig


def test_a_gang_for_instances_finds_them_beside_whole_cards_of_the_same_model() -> None:
    gang = [ask(f"{n}", "2g.20gb", mode="mig", group="g") for n in range(3)]
    for scheduler in SCHEDULERS[1:]:
        plan = scheduler.plan(fleet([whole("w"), whole("x")], [card("a")]), gang, NOON_US)
        assert {placed.card_uuids for placed in plan.placements} == {("a",)}, plan.refusals
        assert len(plan.placements) == 3
