"""Random days of a whole yard: whatever is asked, breaks, dies or passes, the invariants hold after every step."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpuyard.control import commands
from gpuyard.control.launching import Launch
from gpuyard.control.money import make_bill
from gpuyard.control.offering import SliceWish
from gpuyard.model.errors import YardError
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.sharing import Sharing
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.tenants import Share
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.model.workloads import RestartPolicy, WorkloadKind
from gpuyard.placing import find_scheduler
from gpuyard.store import events, incidents, leases, meters, moves, placements, shares, tenants, workloads
from hand_driven_yard import HandYard
from taken_back import CREDITS, given_back_nano

pytestmark = pytest.mark.slow

SECOND = 1_000_000
HOUR_US = 3600 * SECOND
GIB = 1 << 30
EXAMPLES = int(os.environ.get("GPUYARD_YARD_DAYS", "40"))

wishes = st.one_of(
    st.sampled_from(["rtx4090-full", "rtx4090-half", "rtx4090-quarter", "rtx4090-sixteenth", "h100-half"]).map(
        lambda offer: SliceWish(offer=offer)
    ),
    st.builds(
        SliceWish,
        offer=st.sampled_from(["rtx4090-full", "rtx4090-quarter", "rtx4090-quarter"]),
        sharing=st.sampled_from(list(Sharing)),
    ),
    st.builds(
        SliceWish,
        card_model=st.sampled_from([None, "RTX4090"]),
        memory_bytes=st.integers(1, 30).map(lambda gib: gib * GIB),
        compute_ppm=st.integers(1, SHARE_WHOLE_PPM),
        count=st.integers(1, 3),
    ),
)
restarts = st.sampled_from([RestartPolicy.NEVER, RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS])
options = st.sampled_from([PurchaseOption.ON_DEMAND, PurchaseOption.SPOT])
launches = st.one_of(
    st.builds(
        Launch,
        kind=st.sampled_from([WorkloadKind.INSTANCE, WorkloadKind.JOB]),
        slices=wishes,
        command=st.sampled_from([("sleep", "3"), ("sleep", "90"), ("train",)]),
        restart=restarts,
        checkpoint_command=st.sampled_from([(), ("save",)]),
        labels=st.sampled_from([{}, {"gpuyard/movable": "yes"}]),
        time_limit_us=st.sampled_from([None, None, 50 * SECOND]),
        option=options,
    ),
    st.builds(
        Launch,
        kind=st.just(WorkloadKind.JOB),
        slices=wishes,
        command=st.sampled_from([("sleep", "90"), ("train",)]),
        replicas=st.integers(2, 3),
        restart=st.sampled_from([RestartPolicy.NEVER, RestartPolicy.ON_FAILURE]),
        option=options,
        priority=st.integers(0, 1),
    ),
    st.builds(
        Launch,
        kind=st.just(WorkloadKind.SERVICE),
        slices=wishes,
        command=st.just(("serve",)),
        replicas=st.integers(1, 3),
    ),
)


class YardDays(RuleBasedStateMachine):
    """One yard and everything that can happen to it."""

    @initialize(by_day=st.booleans())
    def begin(self, by_day: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.hand = HandYard(Path(self.folder.name))
        self.by_day = by_day  # whether cards are shared in a part of the day only
        self.take_up_the_days_policy()
        self.tenants = [self.hand.tenant("rich"), self.hand.tenant("poor", 3_000_000)]
        self.keys: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "hand"):
            self.heal()
            self.hand.settle(200)
            self.accounts_agree_once_all_is_quiet()
            self.hand.yard.store.close()
            self.folder.cleanup()

    def take_up_the_days_policy(self) -> None:
        if self.by_day:
            self.hand.yard.scheduler = find_scheduler(sharing_window=(22 * 60, 7 * 60))

    def heal(self) -> None:
        self.hand.runtime.refusing = None
        self.hand.probe.broken.clear()
        self.hand.clock.advance(15 * SECOND)

    @rule(wish=launches, who=st.integers(0, 1), key=st.sampled_from([None, "a", "b", "c"]))
    def launch(self, wish: Launch, who: int, key: str | None) -> None:
        try:
            made = self.hand.launch(self.tenants[who], wish, key and f"{who}-{key}")
        except YardError as error:
            assert error.code in {  # noqa: PT017
                "slice_too_large", "no_card_of_model", "too_many_slices", "insufficient_credit", "idempotency_mismatch",
                "priority_too_high", "exclusive_fraction",
            }  # fmt: skip
            return
        if key is not None:
            assert self.keys.setdefault(f"{who}-{key}", made.id) == made.id

    @rule(
        what=st.sampled_from([commands.stop, commands.start, commands.reboot, commands.remove]),
        which=st.integers(0, 20),
    )
    def command(self, what: commands.Command, which: int) -> None:
        with self.hand.yard.store.read() as c:
            known = workloads.unsettled(c)
        if known:
            try:
                what(self.hand.yard, known[which % len(known)].id, "tester")
            except YardError as error:
                assert error.code in {"wrong_state", "insufficient_credit"}  # noqa: PT017

    @rule()
    def look(self) -> None:
        self.hand.loops.pass_once()

    @rule()
    def settle(self) -> None:
        self.hand.settle(100)

    @rule(seconds=st.sampled_from([1, 5, 12, 61, 700, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.hand.clock.advance(seconds * SECOND)

    @rule(which=st.integers(0, 20), how=st.sampled_from(["crash", "finish", "lose"]))
    def a_unit_ends(self, which: int, how: str) -> None:
        live = sorted(self.hand.runtime.live())
        if live:
            getattr(self.hand.runtime, how)(live[which % len(live)])

    @rule(broken=st.booleans())
    def the_engine_breaks_or_heals(self, broken: bool) -> None:
        self.hand.runtime.refusing = YardError("engine_failed", reason="broken for a while") if broken else None

    @rule(which=st.integers(0, 2))
    def a_card_is_lost_or_comes_back(self, which: int) -> None:
        cards = sorted(card.uuid for card in self.hand.yard.roster.cards)
        if cards:
            self.hand.probe.broken ^= {cards[which % len(cards)]}

    @rule(seconds=st.sampled_from([0, 30, 7200]))
    def the_machine_reboots(self, seconds: int) -> None:
        self.hand.clock.reboot(seconds * SECOND)
        self.the_yard_is_killed()

    @rule()
    def the_yard_is_killed(self) -> None:
        self.hand.kill()
        self.take_up_the_days_policy()

    @rule(nano=st.sampled_from([1_000_000, 500_000_000]))
    def credit_is_added(self, nano: int) -> None:
        with self.hand.yard.store.write() as c:
            tenants.add_credit(c, self.tenants[1].id, nano)

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def no_card_is_ever_over(self) -> None:
        memory = {uuid: card.memory_bytes for uuid, card in (self.hand.yard.roster.by_uuid or {}).items()}
        with self.hand.yard.store.read() as c:
            held = leases.usage(c)
            kept = moves.held(moves.under_way(c).values())
        both = {
            uuid: tuple(map(sum, zip(held.get(uuid, (0, 0)), kept.get(uuid, (0, 0)), strict=True)))
            for uuid in held.keys() | kept.keys()
        }
        for uuid, (memory_bytes, compute_ppm) in both.items():
            assert compute_ppm <= SHARE_WHOLE_PPM
            assert memory_bytes <= memory[uuid]
        running: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for unit in self.hand.runtime.live().values():
            for cut in unit.slices:
                running[cut.card_uuid][0] += cut.shape.memory_bytes
                running[cut.card_uuid][1] += cut.shape.compute_ppm
        for uuid, (memory_bytes, compute_ppm) in running.items():
            assert compute_ppm <= SHARE_WHOLE_PPM
            assert memory_bytes <= memory[uuid]

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def two_ways_of_sharing_never_meet_on_a_card(self) -> None:
        with self.hand.yard.store.read() as c:
            way = {workload.id: workload.spec.slices.sharing for workload in workloads.unsettled(c)}
            held = {lease.id: lease for lease in leases.open_leases(c)}
            on_their_way = moves.under_way(c)
        ways: dict[str, set[Sharing]] = defaultdict(set)
        for lease in held.values():
            for cut in lease.slices:
                ways[cut.card_uuid].add(way[lease.workload_id])
        for move in on_their_way.values():
            if move.lease_id in held:
                for uuid in move.held.uuids:
                    ways[uuid].add(way[held[move.lease_id].workload_id])
        assert all(len(found) == 1 for found in ways.values())

    @rule(which=st.integers(0, 20))
    def work_is_made_safe(self, which: int) -> None:
        with self.hand.yard.store.write() as c:
            held = [lease.id for lease in leases.open_leases(c) if lease.state is LeaseState.ACTIVE]
            if held:
                placements.checkpoint(c, [held[which % len(held)]], self.hand.clock.now_us())

    @rule(weight=st.integers(1, 3), cards=st.sampled_from([None, 0, 1, 2]), borrows=st.booleans())
    def a_share_is_set(self, weight: int, cards: int | None, borrows: bool) -> None:
        quota = None if cards is None else cards * SHARE_WHOLE_PPM
        with self.hand.yard.store.write() as c:
            shares.put(c, self.tenants[1].id, Share(weight, quota, None, borrows, max_priority=1))
        self.hand.yard.waiting_generation += 1

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def only_spot_that_holds_slices_is_told_to_go(self) -> None:
        with self.hand.yard.store.read() as c:
            told = placements.notices(c)
            held = {lease.id: lease for lease in leases.open_leases(c)}
        for lease_id in told:
            assert held[lease_id].option is PurchaseOption.SPOT
            assert held[lease_id].state in (LeaseState.GRANTED, LeaseState.ACTIVE)

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def a_gang_gets_its_first_slices_together(self) -> None:
        with self.hand.yard.store.read() as c:
            for workload in workloads.unsettled(c):
                if workload.spec.is_gang:
                    mine = leases.of_workload(c, workload.id, include_ended=True)
                    # Of a replica that was started anew after it had ended, only the lease of the new run counts.
                    now = {
                        lease.replica: lease for lease in sorted(mine, key=lambda x: x.state is not LeaseState.ENDED)
                    }
                    fresh = [x.attempt == 1 and x.state is LeaseState.REQUESTED for x in now.values()]
                    lost = any(lease.reason in ("card_missing", "gang_broken") for lease in mine)
                    assert lost or all(fresh) or not any(fresh) or workload.desired != "run"

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def no_unit_is_started_twice(self) -> None:
        started = self.hand.runtime.started
        assert len(started) == len(set(started))

    @precondition(lambda self: hasattr(self, "hand"))
    @invariant()
    def a_leases_intervals_follow_each_other(self) -> None:
        with self.hand.yard.store.read() as c:
            known = meters.intervals(c)
            counting = meters.open_meters(c)
        now_us = self.hand.clock.now_us()
        last: dict[str, tuple[int, int]] = {}
        for interval in known:
            sequence, end_us = last.get(interval.lease_id, (0, 0))
            assert interval.sequence == sequence + 1
            assert end_us <= interval.start_us <= interval.end_us <= now_us
            last[interval.lease_id] = (interval.sequence, interval.end_us)
        for lease_id, meter in counting.items():
            assert last.get(lease_id, (0, 0))[1] <= meter.start_us <= meter.proven_us <= now_us

    def accounts_agree_once_all_is_quiet(self) -> None:
        with self.hand.yard.store.read() as c:
            open_leases = leases.open_leases(c)
            counting = meters.open_meters(c)
            intervals = meters.intervals(c)
            unsettled = {workload.id: workload for workload in workloads.unsettled(c)}
            held = leases.usage(c)
            assert moves.under_way(c) == {}
            bill = make_bill(c, None)
            told = events.after(c, 0, None, 1_000_000)
            faults = incidents.giving_back(c)
        live = self.hand.runtime.live()
        expected = {lease.unit_name for lease in open_leases if lease.state is LeaseState.ACTIVE}
        assert expected == {name for name in live if self.hand.runtime.observe()[name].state == "running"}
        assert set(counting) <= {lease.id for lease in open_leases}
        for lease in open_leases:
            assert unsettled[lease.workload_id].state is not WorkloadState.REMOVED
        cut: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for lease in open_leases:
            for part in lease.slices:
                cut[part.card_uuid][0] += part.shape.memory_bytes
                cut[part.card_uuid][1] += part.shape.compute_ppm
        assert {uuid: tuple(both) for uuid, both in cut.items()} == held
        timed = [(i.start_us, i.end_us, i.price_per_hour_nano) for i in intervals]
        timed += [(m.start_us, m.proven_us, m.price_per_hour_nano) for m in counting.values()]
        exact = sum(Fraction((end - start) * price, HOUR_US) for start, end, price in timed)
        lines = [line for line in bill.lines if line.what not in ("minimum", *CREDITS)]
        assert abs(sum(line.amount_nano for line in lines) - exact) <= 500 * len(lines)
        returned = [line for line in bill.lines if line.what in CREDITS]
        given_back = given_back_nano(told, intervals, faults)
        assert abs(sum(line.amount_nano for line in returned) + given_back) <= 500 * len(returned)


YardDays.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    derandomize="GPUYARD_YARD_DAYS" not in os.environ,  # the same days in every run, and others when asked for more
    suppress_health_check=list(HealthCheck),
)
TestYardDays = YardDays.TestCase
