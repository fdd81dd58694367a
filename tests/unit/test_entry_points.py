"""The tables that the shim's C is written from say the same of every function."""

from __future__ import annotations

import re

import pytest

from gpuyard.slicing import entry_points
from gpuyard.slicing.layout import NATIVE

APIS = ["cuda", "nvml"]


@pytest.mark.parametrize("api", APIS)
def test_every_function_that_is_ours_has_a_signature_and_every_signature_is_of_a_known_name(api: str) -> None:
    listed, declared = entry_points.names(api), entry_points.signatures(api)
    known = [each.name for each in declared]
    assert len(known) == len(set(known))
    assert set(known) <= {name for name, _ in listed}
    assert {name for name, kind in listed if kind not in entry_points.PASSED_ON} <= set(known)


@pytest.mark.parametrize("api", APIS)
def test_a_way_is_taken_by_functions_that_are_ours_alone(api: str) -> None:
    ours = {name for name, kind in entry_points.names(api) if kind not in entry_points.PASSED_ON}
    assert {each.name for each in entry_points.signatures(api) if each.way} <= ours


@pytest.mark.parametrize("api", APIS)
def test_the_per_thread_version_of_a_function_of_ours_goes_the_same_way(api: str) -> None:
    found = {each.name: each for each in entry_points.signatures(api)}
    for name, each in found.items():
        if each.is_per_thread:
            twin = found[name.removesuffix("_ptsz")]
            assert (twin.way, twin.extra, twin.parameters) == (each.way, each.extra, each.parameters)


@pytest.mark.parametrize("api", APIS)
def test_nothing_of_ours_is_reached_before_it_is_asked_whether_the_shim_refused(api: str) -> None:
    listed = entry_points.names(api)
    written = entry_points.hooks(api, listed, entry_points.signatures(api))
    for name, kind in listed:
        if kind not in (*entry_points.PASSED_ON, "launch"):
            assert re.search(rf"EXPORT int {name}\([^)]*\) {{ ENTER\(\); return gy_ours_{name}\(", written), name
    launches = (NATIVE / "shim" / "cuda_launch.c").read_text()  # they have a way of their own
    assert launches.count("ENTER()") == launches.count("GATED(name) parameters") + 1


def test_arguments_are_the_names_of_the_parameters() -> None:
    one = entry_points.Signature("cuX_ptsz", "", "", "const struct gy_uuid *a, void **b, CUstream stream")
    assert (one.arguments, one.is_per_thread) == ("a, b, stream", True)
    assert entry_points.Signature("cuY", "", "", "void").arguments == ""


def test_a_function_of_ours_without_a_signature_does_not_build() -> None:
    with pytest.raises(KeyError, match="cuNew"):
        entry_points.hooks("cuda", [("cuNew", "alloc")], [])
