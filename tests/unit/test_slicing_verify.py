"""What a program inside of a lease got, judged against what it may have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.verify import TOLERANCE_PPM, judge

GIB = 1 << 30
CUT = Slice("ls-1", "GPU-1", SliceShape(6 * GIB, 250_000), Guarantee.COOPERATIVE)


def card(**changes: Any) -> dict[str, Any]:
    told = {
        "uuid": "GPU-1",
        "shown_bytes": 6 * GIB,
        "free_bytes": 5 * GIB,
        "granted_bytes": {"plain": 5 * GIB, "managed": None},
        "measured_ppm": {"kernels": 250_000, "graphs": 240_000},
    }
    return {**told, **changes}


def judged(*cards: dict[str, Any], before: str = "") -> dict[tuple[str, str], bool | None]:
    printed = f"{before}{json.dumps({'cards': cards})}\n".encode()
    return {(check.name, check.way): check.held for check in judge([CUT], printed)}


def test_what_is_within_the_slice_held_and_what_could_not_be_tried_is_not_said_to_have() -> None:
    assert judged(card(), before="a warning of some library\n") == {
        ("cards", "all"): True,
        ("shown", "total"): True,
        ("memory", "plain"): True,
        ("memory", "managed"): None,
        ("compute", "kernels"): True,
        ("compute", "graphs"): True,
    }


def test_a_byte_more_than_the_slice_did_not_hold() -> None:
    assert judged(card(granted_bytes={"plain": 6 * GIB + 1}))["memory", "plain"] is False
    assert judged(card(shown_bytes=24 * GIB))["shown", "total"] is False


@pytest.mark.parametrize(("got", "held"), [(250_000 + TOLERANCE_PPM, True), (250_001 + TOLERANCE_PPM, False)])
def test_compute_may_be_off_by_what_such_a_measurement_is(got: int, held: bool) -> None:
    assert judged(card(measured_ppm={"kernels": got}))["compute", "kernels"] is held


def test_a_card_that_is_not_ones_own_did_not_hold() -> None:
    assert judged(card(), card(uuid="GPU-2"))["cards", "all"] is False


def test_a_whole_card_has_no_share_to_exceed() -> None:
    whole = Slice("ls-1", "GPU-1", SliceShape(6 * GIB, 1_000_000), Guarantee.COOPERATIVE)
    checks = judge([whole], json.dumps({"cards": [card()]}).encode())
    assert "compute" not in {check.name for check in checks}


@pytest.mark.parametrize(
    "printed",
    [b"", b"nothing", b"[]", b'{"error": "cuInit: 800"}', b'{"cards": []}', b'{"cards": [{"uuid": "GPU-9"}]}'],
)
def test_a_program_that_could_not_try_is_never_a_slice_that_held(printed: bytes) -> None:
    with pytest.raises(YardError) as refusal:
        judge([CUT], printed)
    assert refusal.value.code == "verify_failed"


@pytest.mark.parametrize(("seen", "held"), [(32, True), (34, False), (128, False), (0, False), (30, True)])
def test_under_mps_the_share_is_judged_by_its_multiprocessors_and_not_by_time(seen: int, held: bool) -> None:
    cut = Slice("ls-1", "GPU-1", CUT.shape, Guarantee.MPS)
    told = card(multiprocessors=seen, measured_ppm={"kernels": 1_000_000})
    checks = judge([cut], json.dumps({"cards": [told]}).encode(), {"GPU-1": 128})
    assert [(check.limit, check.held) for check in checks if check.name == "multiprocessors"] == [(32, held)]
    assert [check for check in checks if check.name == "compute"] == []
