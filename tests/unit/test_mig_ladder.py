"""What is claimed of slices of cards in MIG mode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuyard.hardware.simulated import parse_spec, simulated_node
from gpuyard.model.slices import Guarantee
from gpuyard.slicing.ladder import guarantee, left_open
from gpuyard.texts import LANGUAGES, text

EMULATED = simulated_node("n", parse_spec("1xH100:mig")).cards[0]
REAL = replace(EMULATED, simulated=False)
assert EMULATED.mig is not None
SHAPE = EMULATED.mig.shape(EMULATED.mig.profiles[0])


@pytest.mark.parametrize(("card", "because"), [(REAL, "mig_held"), (EMULATED, "mig_emulated")])
def test_an_instance_that_was_tried_is_held_by_the_driver_and_says_what_it_shares(card: object, because: str) -> None:
    verdict = guarantee(card, SHAPE, "process", frozenset({EMULATED.uuid}))  # type: ignore[arg-type]
    assert (verdict.guarantee, verdict.because) == (Guarantee.KERNEL, because)
    assert verdict.not_protected == ("mig_shared", "device") == left_open(Guarantee.KERNEL, "process", True)
    for language in LANGUAGES:
        for key in (verdict.because, *verdict.not_protected):
            assert text(f"guarantee.{key}", language) != f"guarantee.{key}"


@pytest.mark.parametrize(
    ("card", "runtime", "because"),
    [
        (REAL, "process", "mig_not_held"),
        (REAL, "container", "mig_no_containers"),
        (EMULATED, "process", "simulated"),
        (EMULATED, "simulated", "simulated"),
    ],
)
def test_nothing_is_claimed_where_no_instance_was_tried(card: object, runtime: str, because: str) -> None:
    verdict = guarantee(card, SHAPE, runtime)  # type: ignore[arg-type]
    assert (verdict.guarantee, verdict.because) == (Guarantee.NONE, because)


def test_a_container_gets_no_instance_whatever_was_tried_for_processes() -> None:
    assert guarantee(REAL, SHAPE, "container", frozenset({REAL.uuid})).guarantee is Guarantee.NONE
