"""A yard learns what to expect from what came, and a restart forgets none of it."""

from __future__ import annotations

from pathlib import Path

from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish
from gpuyard.model.workloads import WorkloadKind
from gpuyard.scheduling.plan import Plan, Request, Scheduler, Snapshot
from hand_driven_yard import HandYard


class Pupil:
    """A scheduler that places by another and keeps what it was told came."""

    name = "pupil"

    def __init__(self, inner: Scheduler, seen: tuple[Request, ...] = ()) -> None:
        self.inner, self.seen = inner, seen

    def having_seen(self, requests: list[Request]) -> Pupil:
        return Pupil(self.inner, (*self.seen, *requests))

    def plan(self, snapshot: Snapshot, requests: list[Request], now_us: int) -> Plan:
        return self.inner.plan(snapshot, requests, now_us)


def _shares(hand: HandYard) -> list[int]:
    return [request.shape.compute_ppm for request in hand.yard.scheduler.seen]


def test_every_arrival_is_told_once_and_again_after_a_restart(tmp_path: Path, monkeypatch) -> None:
    import hand_driven_yard
    from gpuyard.placing import find_scheduler

    monkeypatch.setattr(hand_driven_yard, "find_scheduler", lambda: Pupil(find_scheduler()))
    hand = HandYard(tmp_path, "1xRTX4090")
    for offer in ("rtx4090-half", "rtx4090-quarter", "rtx4090-full"):
        hand.clock.advance(1_000_000)
        hand.launch(hand.tenant("alice"), Launch(WorkloadKind.JOB, SliceWish(offer=offer), command=("train",)))
        hand.settle()
    assert _shares(hand) == [500_000, 250_000, 1_000_000], "what waits counts as come, too"
    hand.kill()
    assert _shares(hand) == [500_000, 250_000, 1_000_000]
    hand.settle()
    hand.clock.advance(60_000_000)
    hand.settle()
    assert _shares(hand) == [500_000, 250_000, 1_000_000], "and is not counted twice"
