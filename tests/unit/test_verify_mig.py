"""What is said of a MIG instance after a program inside of it tried to get more."""

from __future__ import annotations

import json

import pytest

from gpuyard.catalog import cards, mig
from gpuyard.model.errors import YardError
from gpuyard.model.mig import MigCut, MigPlace
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.verify_mig import judge_instance

MIB = 1 << 20
SMALL = next(profile for profile in mig.profiles_of(cards.find("H100")) if profile.name == "1g.10gb")
CUT = Slice("l", "GPU-1", SliceShape(9728 * MIB, 142_857), Guarantee.KERNEL, MigCut("1g.10gb", MigPlace(19, 6, 1)))


def told(shown: int = 9728, plain: int | None = 9300, multiprocessors: int = 16, devices: int = 1) -> bytes:
    granted = {"plain": None if plain is None else plain * MIB, "managed": 1 << 40}
    card = {"uuid": "GPU-1", "multiprocessors": multiprocessors, "shown_bytes": shown * MIB, "granted_bytes": granted}
    return json.dumps({"cards": [card] * devices}).encode()


@pytest.mark.parametrize(
    ("printed", "broken"),
    [
        (told(), set()),
        (told(shown=9856), set()),  # CUDA and NVML count a little differently
        (told(plain=None), set()),
        (told(shown=81920), {"shown"}),
        (told(plain=20000), {"memory"}),
        (told(multiprocessors=132), {"multiprocessors"}),
        (told(devices=2), {"cards"}),
    ],
)
def test_an_instance_holds_where_no_more_is_had_than_its_profile_has(printed: bytes, broken: set[str]) -> None:
    checks = judge_instance(CUT, SMALL, printed)
    assert {check.name for check in checks if check.held is False} == broken


def test_what_cannot_be_judged_is_not_said_to_hold() -> None:
    checks = {check.name: check for check in judge_instance(CUT, None, told())}
    assert checks["multiprocessors"].held is None
    for printed in (b'{"cards": []}', b'{"error": "cuInit: 100"}', b"no report"):
        with pytest.raises(YardError) as failed:
            judge_instance(CUT, SMALL, printed)
        assert failed.value.code == "verify_failed"
