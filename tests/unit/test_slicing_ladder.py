from __future__ import annotations

from itertools import product

import pytest

from gpuyard.model.fleet import Card
from gpuyard.model.slices import FRACTIONS, Guarantee, SliceShape
from gpuyard.model.units import GIB
from gpuyard.slicing.ladder import NOWHERE, guarantee, left_open
from gpuyard.texts import LANGUAGES, text


def a_card(simulated: bool) -> Card:
    return Card("GPU-1", "RTX4090", "local", "0000:01:00.0", 24 * GIB, simulated=simulated)


def a_shape(parts: int) -> SliceShape:
    return SliceShape.fraction(24 * GIB, parts)


def test_a_whole_real_card_in_a_container_is_exclusive() -> None:
    verdict = guarantee(a_card(simulated=False), a_shape(1), "container")
    assert verdict.guarantee is Guarantee.EXCLUSIVE
    assert verdict.not_protected == ("outside",)


def test_a_whole_card_is_not_exclusive_where_any_process_can_open_it() -> None:
    verdict = guarantee(a_card(simulated=False), a_shape(1), "process")
    assert verdict.guarantee is Guarantee.NONE
    assert "device" in verdict.not_protected


@pytest.mark.parametrize("runtime", ["process", "container", "simulated"])
def test_a_simulated_card_guarantees_nothing(runtime: str) -> None:
    verdict = guarantee(a_card(simulated=True), a_shape(1), runtime)
    assert (verdict.guarantee, verdict.because) == (Guarantee.NONE, "simulated")


@pytest.mark.parametrize("runtime", ["process", "container"])
@pytest.mark.parametrize("shape", [a_shape(2), a_shape(16), SliceShape(24 * GIB, 999_999), SliceShape(1, 1_000_000)])
def test_a_part_of_a_card_is_enforced_by_nobody(runtime: str, shape: SliceShape) -> None:
    verdict = guarantee(a_card(simulated=False), shape, runtime)
    assert verdict.guarantee is Guarantee.NONE
    assert {"memory", "compute", "faults"} <= set(verdict.not_protected)


HELD = frozenset({"GPU-1"})


@pytest.mark.parametrize("runtime", ["process", "container"])
def test_a_part_of_a_card_is_cooperative_where_the_library_was_seen_to_hold(runtime: str) -> None:
    verdict = guarantee(a_card(simulated=False), a_shape(4), runtime, HELD)
    assert verdict.guarantee is Guarantee.COOPERATIVE
    assert {"bypass", "faults", "bandwidth"} <= set(verdict.not_protected)
    assert ("device" in verdict.not_protected) == (runtime == "process")  # a container is given its own cards only


def test_a_whole_card_in_a_container_stays_exclusive_where_the_library_holds_too() -> None:
    assert guarantee(a_card(simulated=False), a_shape(1), "container", HELD).guarantee is Guarantee.EXCLUSIVE
    assert guarantee(a_card(simulated=True), a_shape(1), "container", HELD).guarantee is Guarantee.COOPERATIVE


def test_a_runtime_that_the_ladder_does_not_know_gets_no_guarantee() -> None:
    assert guarantee(a_card(simulated=False), a_shape(1), "new").guarantee is Guarantee.NONE


def test_every_verdict_can_be_told_in_both_languages() -> None:
    runtimes = ("process", "container", "simulated")
    for simulated, parts, runtime in product((True, False), FRACTIONS.values(), runtimes):
        verdict = guarantee(a_card(simulated), a_shape(parts), runtime)
        for key in (verdict.guarantee.value, verdict.because, *verdict.not_protected):
            assert all(f"guarantee.{key}" in texts for texts in LANGUAGES.values())


@pytest.mark.parametrize("runtime", ["process", "container"])
def test_mps_is_said_of_fractions_alone_and_only_where_library_and_mps_were_both_seen_to_hold(runtime: str) -> None:
    card, here, nowhere = a_card(simulated=False), frozenset({"GPU-1"}), frozenset[str]()
    levels = {
        (shim == here, mps == here, parts): guarantee(card, a_shape(parts), runtime, shim, mps).guarantee
        for shim, mps, parts in product((here, nowhere), (here, nowhere), (1, 4))
    }
    assert [case for case, level in levels.items() if level is Guarantee.MPS] == [(True, True, 4)]


@pytest.mark.parametrize("runtime", ["process", "container"])
def test_what_mps_leaves_open_is_told_the_faults_that_it_spreads_too(runtime: str) -> None:
    here = frozenset({"GPU-1"})
    verdict = guarantee(a_card(simulated=False), a_shape(4), runtime, here, here)
    assert {"mps_bypass", "mps_faults", "bandwidth"} <= set(verdict.not_protected)
    assert ("device" in verdict.not_protected) == (runtime == "process")


@pytest.mark.parametrize("runtime", ["process", "container"])
def test_kernel_is_said_of_fractions_alone_and_only_where_library_and_limits_were_both_seen_to_hold(
    runtime: str,
) -> None:
    card, here, nowhere = a_card(simulated=False), frozenset({"GPU-1"}), frozenset[str]()
    levels = {
        (shim == here, kernel == here, parts): guarantee(card, a_shape(parts), runtime, shim, mps, kernel).guarantee
        for shim, mps, kernel, parts in product((here, nowhere), (here, nowhere), (here, nowhere), (1, 4))
    }
    assert [case for case, level in levels.items() if level is Guarantee.KERNEL] == [(True, True, 4)]


@pytest.mark.parametrize("runtime", ["process", "container"])
@pytest.mark.parametrize("mps", [NOWHERE, HELD])
def test_kernel_leaves_compute_open_to_whoever_goes_around_and_limits_to_root(
    runtime: str, mps: frozenset[str]
) -> None:
    verdict = guarantee(a_card(simulated=False), a_shape(4), runtime, HELD, mps, HELD)
    assert verdict.because == ("kernel_mps" if mps else "kernel_held")
    assert {"kernel_compute", "kernel_faults", "kernel_managed", "bandwidth"} <= set(verdict.not_protected)
    assert ("kernel_root" in verdict.not_protected) == (runtime == "process")
    for key in (verdict.because, *verdict.not_protected):
        assert all(f"guarantee.{key}" in texts for texts in LANGUAGES.values())


@pytest.mark.parametrize(("level", "runtime"), list(product(Guarantee, ("process", "container"))))
def test_a_lease_of_every_level_says_what_it_leaves_open(level: Guarantee, runtime: str) -> None:
    told = left_open(level, runtime)
    assert told
    for key in told:
        for language in LANGUAGES:
            assert text(f"guarantee.{key}", language) != f"guarantee.{key}"
