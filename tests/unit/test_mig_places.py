"""Planning MIG instances: what is placed fits the card, and what fits is placed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.model.mig import MigCard, MigPlace, MigProfile
from gpuyard.model.slices import SliceShape
from gpuyard.model.units import GIB, MIB
from gpuyard.scheduling.mig_places import places, plan, profile_for, room

# An H100 with 80 GB, as the driver lists it (NVIDIA's MIG user guide).
H100 = MigCard(
    "GPU-1",
    True,
    (
        MigProfile(19, "1g.10gb", 1, 9728 * MIB, 1, (0, 1, 2, 3, 4, 5, 6), 7),
        MigProfile(14, "2g.20gb", 2, 19968 * MIB, 2, (0, 2, 4), 3),
        MigProfile(9, "3g.40gb", 3, 40192 * MIB, 4, (0, 4), 2),
        MigProfile(5, "4g.40gb", 4, 40192 * MIB, 4, (0,), 1),
        MigProfile(0, "7g.80gb", 7, 81152 * MIB, 8, (0,), 1),
        MigProfile(15, "1g.20gb", 1, 19968 * MIB, 2, (0, 2, 4, 6), 4),
    ),
)


def shape(profile_id: int) -> SliceShape:
    """A shape that only this profile is the smallest for."""
    profile = by_id(profile_id)
    return SliceShape(profile.memory_bytes, profile.compute_slices * 1_000_000 // 7)


def by_id(profile_id: int) -> MigProfile:
    return next(profile for profile in H100.profiles if profile.id == profile_id)


def is_right(card: MigCard) -> bool:
    """By NVIDIA's rules, told anew."""
    slots = Counter(slot for place in card.taken for slot in range(place.start, place.start + place.size))
    counts = Counter(place.profile_id for place in card.taken)
    return (
        all(count == 1 for count in slots.values())
        and all(place.start in by_id(place.profile_id).starts for place in card.taken)
        and all(counts[profile.id] <= profile.most for profile in card.profiles)
        and sum(by_id(place.profile_id).compute_slices for place in card.taken) <= 7
    )


def test_the_smallest_profile_that_is_enough_is_taken() -> None:
    assert profile_for(H100, SliceShape(8 * GIB, 100_000)) == by_id(19)
    assert profile_for(H100, SliceShape(12 * GIB, 100_000)) == by_id(15)  # memory alone asks for more
    assert profile_for(H100, SliceShape(8 * GIB, 250_000)) == by_id(14)
    assert profile_for(H100, SliceShape(8 * GIB, 500_000)) == by_id(5)
    assert profile_for(H100, SliceShape(81 * GIB, 1)) is None


def test_the_first_small_instance_leaves_the_largest_place_whole() -> None:
    found = plan(H100, [shape(19)])
    assert found is not None
    after = replace(H100, taken=found)
    assert room(after)["3g.40gb"] == 1
    assert places(after, by_id(5)) or places(after, by_id(9))


def test_a_mixture_that_fits_in_only_one_way_is_found_whatever_its_order() -> None:
    wanted = [shape(19), shape(14), shape(9), shape(19)]  # the capture of an H100 in our samples is cut so
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [3, 0, 1, 2]):
        found = plan(H100, [wanted[number] for number in order])
        assert found is not None
        assert [place.profile_id for place in found] == [[19, 14, 9, 19][number] for number in order]
        assert is_right(replace(H100, taken=found))


def test_what_does_not_fit_is_refused_whole() -> None:
    assert plan(H100, [shape(9), shape(9), shape(19)]) is None  # the slots are taken, although a seventh is free
    assert plan(H100, [shape(19)] * 7) is not None
    assert plan(H100, [shape(19)] * 8) is None
    assert plan(H100, [shape(5), shape(5)]) is None


def test_instances_that_are_there_keep_their_place() -> None:
    taken = replace(H100, taken=(MigPlace(19, 5, 1),))
    found = plan(taken, [shape(9)])
    assert found == (MigPlace(9, 0, 4),)
    assert plan(taken, [shape(0)]) is None


def test_room_counts_what_fits_of_each_alone() -> None:
    assert room(H100) == {"1g.10gb": 7, "2g.20gb": 3, "3g.40gb": 2, "4g.40gb": 1, "7g.80gb": 1, "1g.20gb": 4}


ids = st.lists(st.sampled_from([profile.id for profile in H100.profiles]), max_size=5)


@settings(deadline=None)
@given(ids, ids)
def test_a_plan_is_always_right_and_none_is_missed(there: list[int], wanted: list[int]) -> None:
    before = plan(H100, [shape(number) for number in there])
    card = replace(H100, taken=before or ())
    found = plan(card, [shape(number) for number in wanted])
    if found is not None:
        assert is_right(replace(card, taken=(*card.taken, *found)))
    else:
        profiles = [profile_for(H100, shape(number)) for number in wanted]
        for starts in product(*(profile.starts for profile in profiles if profile is not None)):
            tried = tuple(
                MigPlace(profile.id, start, profile.size)
                for profile, start in zip((p for p in profiles if p is not None), starts, strict=True)
            )
            assert not is_right(replace(card, taken=(*card.taken, *tried)))


@pytest.mark.parametrize("shapes", [[], [SliceShape(1, 1)]])
def test_the_smallest_wishes_are_planned(shapes: list[SliceShape]) -> None:
    found = plan(H100, shapes)
    assert found is not None
    assert len(found) == len(shapes)
