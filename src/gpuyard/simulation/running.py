"""The event loop: arrivals, ends, faults and hourly consolidation in virtual time over one engine."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gpuyard.scheduling.engine import Engine
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.moves import Holding, Holdings, MoveBudget, consolidate, make_room
from gpuyard.scheduling.state import State, Want, Where
from gpuyard.simulation.arrivals import DAY_US, Arrival

HOUR_US: Final = 3_600_000_000
_MOVES_PER_DAY: Final = 2  # per lease, at most, by consolidation
_LOW_LOAD_PERCENT: Final = 60  # of the cards in use: below, the hour is a window in which nodes are emptied


class Entry(NamedTuple):
    """One line of the log. `reason`: placed, moved or ended, or why a request got nothing."""

    seq: int
    pod: int
    node: int | None
    cards: tuple[int, ...]
    time_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """How a run goes. `waits`: who gets nothing queues instead of going away; `moves`: whether running leases may be
    moved for a request of several cards; `consolidates`: whether nodes are emptied every hour; `faults_per_day`: how
    often a node fails, each; `repair_us`: for how long."""

    waits: bool = False
    moves: bool = False
    consolidates: bool = False
    faults_per_day: float = 0.0
    repair_us: int = 4 * HOUR_US
    budget: MoveBudget = field(default_factory=MoveBudget)
    sample_every: int = 0  # arrivals
    warm_up: int = 0  # arrivals after which counting starts


@dataclass(slots=True)
class Counts:
    """What is counted once warm. `used_ppm_us` integrates the share in use over time."""

    arrivals: Counter[int] = field(default_factory=Counter[int])  # by cards asked for
    refused: Counter[int] = field(default_factory=Counter[int])
    first_refused_ppm: int | None = None  # share asked for until then
    moves: int = 0
    interrupted: int = 0
    used_ppm_us: int = 0
    since_us: int = 0
    until_us: int = 0
    empty_nodes: list[int] = field(default_factory=list[int])
    waits_us: list[int] = field(default_factory=list[int])
    share_us_by_model: Counter[str] = field(default_factory=Counter[str])  # ppm x microseconds in use


class Sample(NamedTuple):
    """The fleet at one moment, for plots."""

    time_us: int
    used_ppm: int
    asked_ppm: int
    empty_nodes: int
    waiting: int
    rests_ppm: int  # free on cards that have something on them


class Run:
    """One policy over one list of arrivals."""

    def __init__(
        self, engine: Engine, state: State, wants: Sequence[Want], rules: Rules, seed: int,
        log: Callable[[Entry], None] | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.state, self.wants, self.rules = engine, state, wants, rules
        self.counts, self.samples = Counts(), list[Sample]()
        self.holdings = Holdings(state)
        self.used_ppm = self.asked_ppm = 0
        self.now_us = 0
        self._log = log
        self._mix = LearntMix(state.nodes) if engine.policy.learns else None
        self._ends: list[tuple[int, int]] = []
        self._events: list[tuple[int, int, str, int]] = []
        self._pods: dict[int, int] = {}
        self._since: dict[int, int] = {}
        self._waiting: dict[int, deque[tuple[int, Arrival]]] = {}
        self._rng = random.Random(seed ^ 0x5EED)  # noqa: S311 - a simulation, which must be repeatable
        self._warm = rules.warm_up == 0
        self._classes = [engine.class_of(want) for want in wants]
        if self._mix is not None:
            self._mix.tell(engine)
        self._plan_events()

    def _plan_events(self) -> None:
        if self.rules.consolidates:
            self._events.append((HOUR_US, 0, "hour", 0))
        if self.rules.faults_per_day > 0:
            self._events += [(self._next_fault(), 2, "fault", node) for node in range(self.state.nodes)]
        heapq.heapify(self._events)

    def _next_fault(self) -> int:
        return self.now_us + max(1, int(self._rng.expovariate(self.rules.faults_per_day / DAY_US)))

    def run(self, arrivals: Iterable[Arrival], progress: Callable[[int], None] | None = None) -> Counts:
        """Until the last arrival is decided, or, where requests wait, until none is left that could still go."""
        for seq, arrival in enumerate(arrivals):
            self._until(arrival.at_us)
            if not self._warm and seq >= self.rules.warm_up:
                self._start_counting()
            self._arrive(seq, arrival)
            if self.rules.sample_every and seq % self.rules.sample_every == 0:
                self._sample()
            if progress is not None and seq % 500 == 0:
                progress(seq)
        while self.rules.waits and self._waiting and self._ends:
            self._until(self._ends[0][0])
        if self.rules.sample_every:
            self._sample()
        for seq, holding in self.holdings.leases.items():
            self._meter(seq, holding)
        self.counts.until_us = self.now_us
        return self.counts

    def _start_counting(self) -> None:
        self._warm = True
        self.counts = Counts(since_us=self.now_us)

    def _until(self, time_us: int) -> None:
        """Everything that happens up to this moment."""
        while True:
            end = self._ends[0][0] if self._ends else time_us + 1
            event = self._events[0][0] if self._events else time_us + 1
            if min(end, event) > time_us:
                break
            if end <= event:
                self._pass(end)
                self._end(heapq.heappop(self._ends)[1])
            else:
                self._pass(event)
                self._happen(*heapq.heappop(self._events)[2:])
        self._pass(time_us)

    def _pass(self, time_us: int) -> None:
        self.counts.used_ppm_us += self.used_ppm * (time_us - self.now_us)
        self.now_us = time_us

    def _arrive(self, seq: int, arrival: Arrival) -> None:
        want = self.wants[arrival.pod]
        self.asked_ppm += want.share_sum_ppm
        self.counts.arrivals[want.slices] += 1
        if self._mix is not None:
            self._mix.see(want, self.engine)
        if self._place(seq, arrival):
            return
        if self.rules.waits:
            self._waiting.setdefault(self._classes[arrival.pod], deque()).append((seq, arrival))
            return
        self._refuse(seq, arrival)

    def _refuse(self, seq: int, arrival: Arrival) -> None:
        want = self.wants[arrival.pod]
        self.counts.refused[want.slices] += 1
        if want.slices and self.counts.first_refused_ppm is None:
            self.counts.first_refused_ppm = self.asked_ppm
        if self._log is not None:
            self._log(Entry(seq, arrival.pod, None, (), self.now_us, self._why_not(want)))

    def _place(self, seq: int, arrival: Arrival) -> bool:
        want, class_ = self.wants[arrival.pod], self._classes[arrival.pod]
        where = self.engine.place(class_)
        if where is None and self.rules.moves and want.slices > 1:
            where = self._make_room(want)
        if where is None:
            return False
        self.holdings.add(seq, Holding(want, class_, where))
        self._pods[seq], self._since[seq] = arrival.pod, self.now_us
        self.used_ppm += want.share_sum_ppm
        if arrival.lasts_us is not None:
            heapq.heappush(self._ends, (self.now_us + arrival.lasts_us, seq))
        self._note(seq, where, "placed")
        return True

    def _make_room(self, want: Want) -> Where | None:
        room = make_room(self.engine, self.holdings, want, self.rules.budget)
        if room is None:
            return None
        for move in room.moves:
            self.holdings.moved(move)
            self._note(move.lease, move.end, "moved")
        self.counts.moves += len(room.moves)
        return room.where

    def _note(self, seq: int, where: Where, reason: str) -> None:
        if self._log is not None:
            self._log(Entry(seq, self._pods[seq], where.node, where.cards, self.now_us, reason))

    def _end(self, seq: int) -> None:
        if seq not in self.holdings.leases:
            return  # a fault was first
        self._release(seq, "ended")
        self._serve_waiting()

    def _release(self, seq: int, reason: str) -> None:
        holding = self.holdings.drop(seq)
        if self._mix is not None:
            self._mix.gone()
        self.engine.give(holding.class_, holding.where)
        self.used_ppm -= holding.want.share_sum_ppm
        self._note(seq, holding.where, reason)
        self._meter(seq, holding)
        del self._pods[seq], self._since[seq]

    def _meter(self, seq: int, holding: Holding) -> None:
        """What a lease used since counting began, by the model that it has now."""
        if holding.where.cards:
            model = self.state.models[self.state.model[holding.where.node * self.state.width + holding.where.cards[0]]]
            used_us = self.now_us - max(self._since[seq], self.counts.since_us)
            self.counts.share_us_by_model[model] += holding.want.share_sum_ppm * used_us

    def _serve_waiting(self) -> None:
        """Those who wait, oldest first by class: a class that does not fit stands aside, so the work is bounded."""
        for class_ in sorted(self._waiting, key=lambda known: self._waiting[known][0][0]):
            queue = self._waiting[class_]
            while queue and self._place(*queue[0]):
                self.counts.waits_us.append(self.now_us - queue[0][1].at_us)
                queue.popleft()
            if not queue:
                del self._waiting[class_]

    def _happen(self, what: str, node: int) -> None:
        if what == "hour":
            most = max(1, len(self.holdings.leases) * _MOVES_PER_DAY // 24)
            low = self.used_ppm * 100 < _LOW_LOAD_PERCENT * self.state.share_total
            moves = consolidate(self.engine, self.holdings, most, self.rules.budget) if low else []
            for move in moves:
                self._note(move.lease, move.end, "moved")
            self.counts.moves += len(moves)
            self.counts.empty_nodes.append(self.holdings.empty_nodes)
            heapq.heappush(self._events, (self.now_us + HOUR_US, 0, "hour", 0))
        elif what == "fault":
            for seq in sorted(self.holdings.on[node]):
                self.counts.interrupted += 1
                self._release(seq, "interrupted")
            self.state.open[node] = 0
            self.engine.set_open(node, False)
            heapq.heappush(self._events, (self.now_us + self.rules.repair_us, 3, "repaired", node))
        else:
            self.state.open[node] = 1
            self.engine.set_open(node, True)
            heapq.heappush(self._events, (self._next_fault(), 2, "fault", node))
            self._serve_waiting()

    def _sample(self) -> None:
        waiting = sum(map(len, self._waiting.values()))
        empty = self.holdings.empty_nodes
        rests = 0
        for node, leases in self.holdings.on.items():
            if leases:
                rests += sum(share for share, _, mode in self.engine.free(node).cards if mode)
        self.samples.append(Sample(self.now_us, self.used_ppm, self.asked_ppm, empty, waiting, rests))

    def _why_not(self, want: Want) -> str:
        """What was short: no node would take it even with less of that."""
        if want.slices and self.engine.choose(self.engine.class_of(want._replace(cpu_milli=0, memory_bytes=0))) is None:
            return "no_cards"
        if self.engine.choose(self.engine.class_of(want._replace(memory_bytes=0))) is None:
            return "no_cpu"
        return "no_memory"
