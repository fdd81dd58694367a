"""A tenant says how its slices share their cards, and two ways never share one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpuyard.api.schemas import LaunchRequest
from gpuyard.api.why_view import why_view
from gpuyard.api.workloads import to_launch
from gpuyard.control import commands
from gpuyard.control.explaining import why
from gpuyard.control.launching import Launch, prepare
from gpuyard.control.offering import SliceWish
from gpuyard.control.placement import take_snapshot
from gpuyard.control.sharing_wishes import must_be_shared_so, under_mps
from gpuyard.model.errors import YardError
from gpuyard.model.sharing import Sharing
from gpuyard.model.workloads import Workload, WorkloadKind
from gpuyard.scheduling.relocating import MovePolicy
from gpuyard.scheduling.windows import Window
from gpuyard.store import leases, specs, workloads
from hand_driven_yard import HandYard


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    return HandYard(tmp_path, "2xRTX4090")


def job(hand: HandYard, name: str, sharing: str, offer: str = "rtx4090-quarter", **more: object) -> Workload:
    wish = SliceWish(offer=offer, sharing=Sharing(sharing))
    values: dict[str, object] = {"command": ("train",), **more}
    made = hand.launch(hand.tenant("alice"), Launch(WorkloadKind.JOB, wish, name=name, **values))  # type: ignore[arg-type]
    hand.settle()
    return made


def card(hand: HandYard, workload: Workload) -> str | None:
    with hand.yard.store.read() as c:
        (lease,) = leases.of_workload(c, workload.id)
    return lease.slices[0].card_uuid if lease.slices else None


def test_two_ways_never_share_a_card_and_who_waits_for_that_is_told(hand: HandYard) -> None:
    turns, at_once = job(hand, "turns", "time_slice"), job(hand, "at-once", "mps")
    assert card(hand, turns) != card(hand, at_once)
    again = job(hand, "again", "time_slice")
    assert card(hand, again) == card(hand, turns)
    usual = job(hand, "usual", "shared")
    assert card(hand, usual) is None
    with hand.yard.store.read() as c:
        found = workloads.get(c, usual.id)
        assert found is not None
        known = {each.id: each for each in workloads.unsettled(c)}
        seen = take_snapshot(c, hand.yard.roster.nodes, leases.open_leases(c), known)
    assert {each.mode for node in seen.nodes for each in node.cards} == {"time_slice", "mps"}
    told = "\n".join(why_view(why(hand.yard, found), "en")["lines"])
    assert "does not share them with this lease now" in told
    commands.remove(hand.yard, at_once.id, "tester")
    hand.settle()
    assert card(hand, usual) is not None


def test_what_is_moved_keeps_its_way_of_sharing(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "1xRTX4090;1xRTX4090;1xRTX4090")
    other = job(hand, "other", "mps", checkpoint_command=("save",))
    turns = job(hand, "turns", "time_slice", checkpoint_command=("save",))
    hand.yard.moves = MovePolicy(window=Window(0, 24 * 60))
    hand.clock.advance(400_000_000)
    hand.settle(200)
    assert card(hand, other) != card(hand, turns)


def test_part_of_a_card_is_not_had_alone_and_a_whole_one_is(hand: HandYard) -> None:
    with pytest.raises(YardError) as refused:
        job(hand, "part", "exclusive")
    assert (refused.value.code, refused.value.params) == ("exclusive_fraction", {"offer": "rtx4090-full"})
    assert card(hand, job(hand, "whole", "exclusive", "rtx4090-full")) is not None


def test_real_cards_are_shared_only_as_they_are(hand: HandYard) -> None:
    quarter = Launch(WorkloadKind.JOB, SliceWish(offer="rtx4090-quarter"), command=("x",))
    slices = prepare(hand.yard, quarter).spec.slices
    at_once, turns = (replace(slices, sharing=Sharing(way)) for way in ("mps", "time_slice"))
    must_be_shared_so(hand.yard, turns, "process")
    with pytest.raises(YardError) as refused:
        must_be_shared_so(hand.yard, at_once, "process")
    assert (refused.value.code, refused.value.params["reason"]) == ("sharing_unavailable", "no_mps")
    held = frozenset(each.uuid for each in hand.yard.roster.cards)
    hand.yard.engine.mps_cards["process"] = held
    must_be_shared_so(hand.yard, at_once, "process")
    assert under_mps(hand.yard, Sharing.MPS, "process") == held
    assert not under_mps(hand.yard, Sharing.TIME_SLICE, "process")
    with pytest.raises(YardError) as refused:
        must_be_shared_so(hand.yard, turns, "process")
    assert refused.value.params["reason"] == "only_mps"


def test_it_is_said_over_http_and_kept_with_the_spec(hand: HandYard) -> None:
    body = {"kind": "job", "slices": {"offer": "rtx4090-half", "sharing": "mps"}, "command": ["x"]}
    spec = prepare(hand.yard, to_launch(LaunchRequest.model_validate(body))).spec
    assert spec.slices.sharing is Sharing.MPS
    text = specs.to_json(spec)
    assert specs.from_json(text) == spec
    older = text.replace(',"sharing":"mps"', "")
    assert older != text
    assert specs.from_json(older).slices.sharing is Sharing.SHARED
