"""The yard's heartbeat: look at the world, decide, write it down, act; and again.

Every pass may be cut short at any instruction: the next one looks anew. One thread runs them all, so that a pass never
races another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from gpuyard.control import acting, fleet_watch, volumes
from gpuyard.control.applying import StaleError, apply_part, parts_of
from gpuyard.control.attesting import end_what_is_over
from gpuyard.control.bidding import outbid
from gpuyard.control.clock import remember_latest
from gpuyard.control.cpu_only import without_price
from gpuyard.control.decisions import NO_REST, Rest, decide
from gpuyard.control.egress import EgressWatch
from gpuyard.control.escape_watch import EscapeWatch
from gpuyard.control.fleet_view import FleetView
from gpuyard.control.geography import stop_what_is_outside
from gpuyard.control.invoicing import issue_monthly
from gpuyard.control.learning import learn_demand, recall_arrivals
from gpuyard.control.limit_watch import tell_of_limits
from gpuyard.control.money_watch import MoneyWatch
from gpuyard.control.moving import EMPTY_NODES_EVERY_US, empty_nodes, finish_moves, move_for_the_waiting, part_leases
from gpuyard.control.mps_watch import look_after_mps
from gpuyard.control.placement import place
from gpuyard.control.price_watch import follow_prices
from gpuyard.control.reading import Reading, read
from gpuyard.control.reclaiming import reclaim_for_the_waiting, withdraw_the_needless
from gpuyard.control.resting import Resting
from gpuyard.control.spot_market import clear_markets
from gpuyard.control.world import Moment, StartUnit, StopUnit, Verdict, World
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.scheduling.cycle import Waiting
from gpuyard.scheduling.plan import Refusal

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
MOTION_SECONDS = 0.025
YIELD_SECONDS = 0.0002  # between two writes: the lock goes to whoever waits for it
PROVE_EVERY_US = 10_000_000  # how often proofs of running are written down when nothing else changes
ESCAPES_EVERY_US = 10_000_000
DEMAND_EVERY_US = 600_000_000
QUEUE_EVERY_US = 10_000_000  # how often the queue is looked at where nothing but the time has changed
INVOICES_EVERY_US = 600_000_000
SPOT_EVERY_US = 60_000_000
GEOGRAPHY_EVERY_US = 10_000_000


class Loops:
    """Keeps one yard as it should be. `pass_once` is the whole of it; `run` repeats it."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        recall_arrivals(yard)
        self.actor = acting.Actor(yard)
        self._pending: dict[str, Mapping[str, object]] = {}
        self._planned_for: object = None
        self._addresses: Mapping[str, object] = {}
        self._in_motion = False  # a unit is starting or stopping: the engine will soon have something new
        self._read: Reading | None = None
        self._resting = Resting()
        self._view = FleetView()
        self._next_proof_us = 0
        self._next_fleet_us = 0
        self._money = MoneyWatch(yard)
        self._egress = EgressWatch(yard)
        self._next_geography_us = 0
        self._escapes = EscapeWatch(yard)
        self._next_escapes_us = 0
        self._next_demand_us = 0
        self._next_invoices_us = 0
        self._next_spot_us = 0
        self._next_emptying_us = 0
        self._bidders: frozenset[str] = frozenset()  # leases on spot as they were read last

    def pass_once(self) -> bool:
        """One look. Returns whether anything changed, in which case looking again at once is worth it.

        Raises YardError where the store refuses (full, gone); nothing is half done then.
        """
        now = self._now()
        if now.at_us >= self._next_fleet_us:
            fleet_watch.update_fleet(self.yard, now.at_us)
            self._next_fleet_us = now.at_us + fleet_watch.EVERY_US
        self._money.look(now.at_us)
        look_after_mps(self.yard, now.at_us)
        if now.at_us >= self._next_escapes_us:
            self._escapes.look(now.at_us)
            tell_of_limits(self.yard, now.at_us)
            self._next_escapes_us = now.at_us + ESCAPES_EVERY_US
        follow_prices(self.yard, now.at_us)
        if now.at_us >= self._next_invoices_us:
            issue_monthly(self.yard, now.at_us)
            self._next_invoices_us = now.at_us + INVOICES_EVERY_US
        self._clear_spot(now.at_us)
        if now.at_us >= self._next_geography_us:
            stop_what_is_outside(self.yard, now.at_us)
            end_what_is_over(self.yard, now.at_us)
            self._next_geography_us = now.at_us + GEOGRAPHY_EVERY_US
        self.yard.authority.auditor.settle(now.at_us)
        self.yard.token_uses.settle(self.yard.store)
        observations, owner = self.yard.engine.observe()
        now = self._now()
        self._money.note_units(observations)
        self._egress.look(observations, owner, now.at_us)
        self._publish(observations)
        world = self._look(now, observations)
        verdict = decide(world, self._rest(world))
        changed = self._write(verdict, world)
        placed = self._place(world, changed) or self._tidy(now.at_us)
        if now.at_us >= self._next_demand_us and self._read is not None:
            learn_demand(self.yard, world.leases, world.workloads, now.at_us)
            self._next_demand_us = now.at_us + DEMAND_EVERY_US
        acted = self.actor.act(verdict.actions, world, owner)
        volumes.settle(self.yard, world)
        self._in_motion = (
            acted
            or any(isinstance(action, StartUnit | StopUnit) for action in verdict.actions)
            or any(observation.state is UnitState.CREATED for observation in observations.values())
        )
        return changed or placed or acted

    def _clear_spot(self, now_us: int) -> None:
        """Every minute, and at once for whoever is new on spot: an offer's first price must not wait for a minute."""
        leases_read = self._read.leases if self._read is not None else ()
        bidders = frozenset(lease.id for lease in leases_read if lease.option is PurchaseOption.SPOT)
        if now_us >= self._next_spot_us or not bidders <= self._bidders:
            clear_markets(self.yard, now_us)
            self._next_spot_us = now_us // SPOT_EVERY_US * SPOT_EVERY_US + SPOT_EVERY_US
        self._bidders = bidders

    def _publish(self, observations: Mapping[str, Observation]) -> None:
        addresses = {name: observation.ports for name, observation in observations.items()}
        if addresses != self._addresses:
            self._addresses = addresses
            self.yard.seen_version += 1
        self.yard.seen = observations

    def _now(self) -> Moment:
        clock = self.yard.clock
        return Moment(clock.now_us(), clock.monotonic_ns(), clock.boot_id)

    def _look(self, now: Moment, observations: Mapping[str, Observation]) -> World:
        # What was read stays true until something is written: an idle second costs no query.
        if self._read is None or self._read.generation != self.yard.store.generation:
            self._read = read(self.yard, self._read)
        return World(
            now=now,
            workloads=self._read.workloads,
            leases=self._read.leases,
            meters=self._read.meters,
            observations=observations,
            healthy_cards=self.yard.roster.usable,
            proofs_due=now.at_us >= self._next_proof_us,
            start_errors=self.actor.start_errors,
            pending_reasons=self._pending,
            notices=self._read.notices,
            moves=self._read.moves,
            locked=volumes.locked(self.yard, self._read.leases, self._read.workloads),
        )

    def _rest(self, world: World) -> Rest:
        return NO_REST if self._read is None else self._resting.look(self._read, world.observations, world.now.at_us)

    def _write(self, verdict: Verdict, world: World) -> bool:
        for part in parts_of(verdict):
            with self.yard.store.write() as c:
                apply_part(c, part, world.workloads, world.now.at_us)
            time.sleep(YIELD_SECONDS)
        if world.proofs_due:
            with self.yard.store.write() as c:
                remember_latest(c, world.now.at_us)
            self._next_proof_us = world.now.at_us + PROVE_EVERY_US
        return bool(verdict.lease_changes or verdict.workload_changes)

    def _place(self, world: World, changed: bool) -> bool:
        """Plans again only where something that a plan depends on is new: a long queue costs nothing while it waits."""
        if changed or self._read is None:
            self._read = read(self.yard, self._read)
        open_leases = [lease for lease in self._read.leases if lease.workload_id in world.workloads]
        version = self._read.fleet_version
        waiting = frozenset(lease.id for lease in open_leases if lease.state == "requested")
        withdrawn = bool(world.notices) and withdraw_the_needless(self.yard, world, open_leases)
        on_their_way = self._read.moves
        if on_their_way and finish_moves(self.yard, on_their_way, open_leases, world.workloads, world.now.at_us):
            withdrawn = True
        held = self._held(open_leases, world) if waiting else {}
        waiting -= held.keys()
        if not waiting:
            changed = self._pending != held
            self._pending = dict(held)
            self.yard.waiting = Waiting()
            return withdrawn or changed
        open_leases = [lease for lease in open_leases if lease.id not in held]
        question = (version, waiting, self.yard.waiting_generation, world.now.at_us // QUEUE_EVERY_US)
        if question == self._planned_for or withdrawn:
            return withdrawn
        done = place(self.yard, open_leases, world.workloads, world.now, self._view)
        if done is None:
            return False
        placed, snapshot, standing, decision = done
        before = self._pending
        self._pending = {refusal.lease_id: explain(refusal) for refusal in decision.plan.refusals} | held
        self.yard.waiting = Waiting.of(decision)
        self._planned_for = question if not placed else None
        if not placed and reclaim_for_the_waiting(
            self.yard, snapshot, standing, decision, world.workloads, world.now.at_us
        ):
            self._planned_for = None
            return True
        if not placed and move_for_the_waiting(
            self.yard, snapshot, standing, decision, open_leases, world.workloads, world.now.at_us
        ):
            self._planned_for = None
            return True
        return placed > 0 or self._pending != before

    def _held(self, open_leases: Sequence[Lease], world: World) -> dict[str, Mapping[str, object]]:
        """By waiting lease, why no plan is made for it, whatever is free."""
        missing = volumes.locked(self.yard, open_leases, world.workloads)
        return (
            outbid(self.yard, open_leases, world.workloads)
            | without_price(self.yard, open_leases, world.workloads)
            | volumes.held_back(missing, open_leases)
        )

    def _tidy(self, now_us: int) -> bool:
        if now_us < self._next_emptying_us or self._read is None:
            return False
        self._next_emptying_us = now_us + EMPTY_NODES_EVERY_US
        asked = self.yard, self._read.leases, self._read.workloads, now_us
        return empty_nodes(*asked) or part_leases(*asked)

    def run(self, stop: threading.Event) -> None:
        """Passes until `stop` is set; at once when something changed or `yard.wake` is set, else every second.

        A pass that fails is logged once per cause and tried again: a full disk or a lost database heals by itself.
        """
        while not stop.is_set():
            begun = time.monotonic()
            again = False
            try:
                again = self.pass_once()
                self._report(None)
            except StaleError:
                again = True
            except YardError as error:
                self._report(f"{error.code} {error.params}")
            except Exception as error:
                log.exception("pass_failed")
                self._report(f"{type(error).__name__}: {error}")
            time.sleep(time.monotonic() - begun)  # as long as the pass took: half of a core is left to whoever asks
            self.yard.wake.wait(self._pause(again))
            self.yard.wake.clear()

    def _pause(self, again: bool) -> float:
        """How long to wait for news."""
        if self.yard.trouble is not None:
            return IDLE_SECONDS
        return 0.0 if again else MOTION_SECONDS if self._in_motion else IDLE_SECONDS

    def _report(self, trouble: str | None) -> None:
        if trouble == self.yard.trouble:
            return
        self.yard.trouble = trouble
        if trouble is None:
            log.info("loops_well_again")
        else:
            log.warning("loops_in_trouble", extra={"trouble": trouble})


def explain(refusal: Refusal) -> dict[str, object]:
    """A refusal as the facts of the reason `waiting_for_slices`."""
    return {
        "shortfalls": [{"node": lack.node, "lacks": lack.lacks, **lack.params} for lack in refusal.shortfalls[:8]],
        "more_nodes": max(0, len(refusal.shortfalls) - 8),
        "fits_memory_bytes": refusal.largest_fit.memory_bytes if refusal.largest_fit else None,
        "fits_compute_ppm": refusal.largest_fit.compute_ppm if refusal.largest_fit else None,
        "ever": refusal.ever,
    }
