"""Where data may lie: what was first written in a region stays in the regions of that region's class. Data are volumes,
and the disks of workloads with the snapshots and logs on them. A region that no class names takes no data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResidencyClass:
    """Regions among which data may go. No region is in two classes."""

    name: str
    regions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Which data may not be used, of which class they are, where it was asked for, and why: `region_unclassed` or
    `other_class`."""

    data: str
    residency_class: str
    region: str
    why: str


def class_of(classes: Sequence[ResidencyClass], region: str | None) -> str | None:
    """The class of a region."""
    return next((one.name for one in classes if region in one.regions), None)


def misplaced(
    classes: Sequence[ResidencyClass], homes: Mapping[str, str], data: Sequence[str], regions: Collection[str | None]
) -> Misplaced | None:
    """Why these data may not be used in all of these regions, or None. `homes` are the classes of what has one: what is
    new has none, and may begin in any region that has a class."""
    if not classes:
        return None
    for region in sorted(regions, key=str):
        found = class_of(classes, region)
        for one in data:
            if found is None:
                return Misplaced(one, homes.get(one, "--"), region or "--", "region_unclassed")
            if homes.get(one, found) != found:
                return Misplaced(one, homes[one], region or "--", "other_class")
    return None


def overlap(classes: Sequence[ResidencyClass], name: str, regions: Collection[str]) -> str | None:
    """A region that another class has already."""
    return next((r for one in classes if one.name != name for r in sorted(regions) if r in one.regions), None)
