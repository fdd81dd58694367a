"""Data stay in the class of the region where they were first written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuyard.access.residency import ResidencyClass, class_of, misplaced, overlap

EU, US = ResidencyClass("eu", frozenset({"eu-west", "eu-north"})), ResidencyClass("us", frozenset({"us-east"}))
BOTH = (EU, US)


def why(homes: dict[str, str], data: list[str], *regions: str | None) -> str | None:
    found = misplaced(BOTH, homes, data, regions)
    return None if found is None else f"{found.data} {found.residency_class} {found.region} {found.why}"


def test_what_is_new_may_begin_in_any_region_that_has_a_class() -> None:
    assert why({}, ["volume/a"], "eu-west", "us-east") is None
    assert why({}, ["volume/a"], "mars") == "volume/a -- mars region_unclassed"
    assert why({}, ["volume/a"], None) == "volume/a -- -- region_unclassed"


def test_what_lies_somewhere_stays_in_the_regions_of_its_class() -> None:
    homes = {"volume/a": "eu"}
    assert why(homes, ["volume/a"], "eu-north") is None
    assert why(homes, ["volume/a"], "us-east") == "volume/a eu us-east other_class"
    assert why(homes, ["volume/a"], "eu-west", "us-east") == "volume/a eu us-east other_class"
    assert why(homes, ["volume/b"], "us-east") is None


def test_a_class_that_was_taken_away_takes_no_data_anywhere() -> None:
    assert why({"volume/a": "asia"}, ["volume/a"], "eu-west") == "volume/a asia eu-west other_class"


def test_without_classes_nothing_is_asked() -> None:
    assert misplaced((), {"volume/a": "eu"}, ["volume/a"], {None}) is None


def test_a_region_is_in_one_class() -> None:
    assert overlap(BOTH, "asia", {"us-east"}) == "us-east"
    assert overlap(BOTH, "us", {"us-east"}) is None
    assert class_of(BOTH, "eu-west") == "eu"


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["eu", "us", "gone"])),
    st.sets(st.sampled_from(["eu-west", "us-east", "mars"]), min_size=1),
)
def test_data_are_never_let_into_a_region_of_another_class(homes: dict[str, str], regions: set[str]) -> None:
    refused = misplaced(BOTH, homes, list("abcd"), regions)
    wrong = [
        r
        for r in regions
        for one in "abcd"
        if class_of(BOTH, r) is None or homes.get(one, class_of(BOTH, r)) != class_of(BOTH, r)
    ]
    assert (refused is not None) == bool(wrong)
    assert refused is None or refused.region in wrong
