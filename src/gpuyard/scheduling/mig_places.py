"""Which MIG instances to make where. Pure: it plans on what a probe read from NVML, and respects its placements.

An instance is fixed in place for its life, and a careless start costs larger ones their place: of the starts that are
free, an instance gets the one that leaves most places to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpuyard.model.mig import MigCard, MigPlace, MigProfile
from gpuyard.model.slices import SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM


def profile_for(card: MigCard, shape: SliceShape) -> MigProfile | None:
    """The smallest profile that is at least the shape; None where even the whole card is less."""
    whole = card.compute_slices
    fitting = [
        profile
        for profile in card.profiles
        if profile.memory_bytes >= shape.memory_bytes
        and profile.compute_slices * SHARE_WHOLE_PPM >= shape.compute_ppm * whole
    ]
    return min(fitting, key=lambda profile: (profile.size, profile.compute_slices, profile.id), default=None)


def places(card: MigCard, profile: MigProfile) -> tuple[MigPlace, ...]:
    """Where one more instance of the profile could lie now; none where the card has no compute left for it."""
    used = sum(_slices(card, place) for place in card.taken)
    already = sum(place.profile_id == profile.id for place in card.taken)
    if already >= profile.most or used + profile.compute_slices > card.compute_slices:
        return ()
    all_places = (MigPlace(profile.id, start, profile.size) for start in profile.starts)
    return tuple(place for place in all_places if not any(place.meets(other) for other in card.taken))


def room(card: MigCard) -> dict[str, int]:
    """How many more instances of each profile fit if nothing else is made, by the profile's name."""
    return {profile.name: sum(1 for _ in _filling(card, profile)) for profile in card.profiles}


def plan(card: MigCard, shapes: Sequence[SliceShape]) -> tuple[MigPlace, ...] | None:
    """A place for each shape, in their order; None where they do not all fit, however they are placed.

    The largest are placed first, and a place that leaves no room for the rest is given up again.
    """
    wanted: list[tuple[int, MigProfile]] = []
    for number, shape in enumerate(shapes):
        profile = profile_for(card, shape)
        if profile is None:
            return None
        wanted.append((number, profile))
    wanted.sort(key=lambda each: (-each[1].size, -each[1].compute_slices, each[0]))
    found = _place_all(card, [profile for _, profile in wanted])
    if found is None:
        return None
    by_number = dict(zip((number for number, _ in wanted), found, strict=True))
    return tuple(by_number[number] for number in range(len(shapes)))


def _place_all(card: MigCard, profiles: Sequence[MigProfile]) -> list[MigPlace] | None:
    if not profiles:
        return []
    for place in _best_first(card, profiles[0]):
        rest = _place_all(card.taking(place), profiles[1:])
        if rest is not None:
            return [place, *rest]
    return None


def best_place(card: MigCard, profile: MigProfile) -> MigPlace | None:
    """Where one more instance of the profile leaves most room to others; None where there is no place for it."""
    return next(iter(_best_first(card, profile)), None)


def room_left(card: MigCard) -> int:
    """How much could still be made of a card: for each profile alone, its places, by the memory that they cover."""
    return sum(len(places(card, profile)) * profile.size for profile in card.profiles)


def _best_first(card: MigCard, profile: MigProfile) -> list[MigPlace]:
    return sorted(places(card, profile), key=lambda place: (-room_left(card.taking(place)), place.start))


def _filling(card: MigCard, profile: MigProfile) -> Iterator[MigPlace]:
    while best := _best_first(card, profile):
        card = card.taking(best[0])
        yield best[0]


def _slices(card: MigCard, place: MigPlace) -> int:
    """Of an instance of a profile that the card does not name any more, as much as it can have."""
    profile = card.profile(place.profile_id)
    return min(place.size, card.compute_slices) if profile is None else profile.compute_slices
