"""Places the requests of a yard where they take least from those that will come.

The kernel that decides is the one that `gpuyard simulate` runs; a `Snapshot` becomes its state, its choices become
a `Plan`. What is refused is explained by `BestFit`, which is work-conserving too and so refuses the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gpuyard.catalog import cards as catalogue
from gpuyard.model.slices import FRACTIONS, SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.best_fit import BestFit
from gpuyard.scheduling.engine import EngineMaker, Typical
from gpuyard.scheduling.kept_fleet import Fleet, KeptFleet
from gpuyard.scheduling.mix import MOST, WEIGHTS_SUM, cpu_per_card_milli
from gpuyard.scheduling.plan import NodeView, Placement, Plan, Refusal, Request, Snapshot
from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.state import ANY_MODEL, MODES, MOST_CARDS, MOST_MODELS, ModelCosts, State, Want
from gpuyard.scheduling.topology import card_distances

# What is expected of every yard before anything came: the shapes of the catalogue, by how often, and cores per card.
PRIOR_SHAPES: Final[Mapping[str, int]] = {"full": 8, "half": 4, "quarter": 2, "eighth": 1}
PRIOR_CPU_MILLI: Final = 8_000
# Arrivals that weigh as much as the prior.
PRIOR_WORTH: Final = 50
ARRIVALS_KEPT: Final = 4_000


class FragmentationAware:
    """See `Scheduler`. `arrivals` is what came so far, by kind; a scheduler that knows more is a new value."""

    name = "fragmentation_aware"

    def __init__(
        self,
        make_engine: EngineMaker,
        arrivals: Mapping[Request, int] | None = None,
        policy: Policy = Policy("gpuyard"),  # noqa: B008 - a frozen value
        kept: KeptFleet | None = None,
    ) -> None:
        self._make_engine = make_engine
        self._policy = policy
        self._arrivals: Mapping[Request, int] = arrivals or {}
        self._kept = kept or KeptFleet(make_engine, policy, in_order, state_of)

    def having_seen(self, requests: Sequence[Request]) -> FragmentationAware:
        """The scheduler that has learnt of these arrivals too."""
        counts = Counter(dict(self._arrivals))
        counts.update(_kind(request) for request in requests)
        if counts.total() > ARRIVALS_KEPT:  # what is counted fades: older arrivals weigh half
            counts = Counter({kind: count // 2 for kind, count in counts.items() if count > 1})
        return FragmentationAware(self._make_engine, counts, self._policy, self._kept)

    @property
    def weighs_topology(self) -> bool:
        """See `Weighing`."""
        return self._policy.weight("topology") > 0

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """See `Scheduler.plan`."""
        if not requests or not _fits_the_kernel(snapshot):
            return BestFit().plan(snapshot, requests, now_us)
        with self._kept.borrow(snapshot) as fleet:
            return _Planning(fleet, self._arrivals, snapshot).run(requests, now_us)


def _fits_the_kernel(snapshot: Snapshot) -> bool:
    """Whether its tables are large enough: they are for every server that is built."""
    models = {card.model for node in snapshot.nodes for card in node.cards}
    widest = max((len(node.cards) for node in snapshot.nodes), default=0)
    return bool(snapshot.nodes) and widest <= MOST_CARDS and len(models) <= MOST_MODELS


def _kind(request: Request) -> Request:
    """The request without whose it is."""
    return Request(
        "", request.shape, request.count, request.card_model, request.cpu_milli, request.memory_bytes, mode=request.mode
    )


def in_order(nodes: Sequence[NodeView]) -> list[NodeView]:
    """Nodes as they are filled: in an order that is always the same and has nothing to do with what they are."""
    return sorted(nodes, key=lambda node: hashlib.sha256(node.name.encode()).digest())


def state_of(nodes: Sequence[NodeView], prices_nano: Mapping[str, int] | None = None) -> State:
    """The columns for these nodes. Cards that take nothing new, and those in MIG mode, which are not cut
    freely, are left without anything free."""
    state = State(max((len(node.cards) for node in nodes), default=1) or 1)
    for node in nodes:
        number = state.add_node(node.name, node.cpu_free_milli, max(0, node.memory_free_bytes), takes=node.schedulable)
        for card in node.cards:
            takes = card.schedulable and card.mig is None
            state.add_card(
                number,
                card.model,
                card.memory_bytes,
                share_free_ppm=card.compute_free_ppm if takes else 0,
                card_memory_free_bytes=card.memory_free_bytes if takes else 0,
                mode=0 if card.empty else MODES[card.mode or "shared"],
            )
        if node.topology is not None:
            state.links[number] = card_distances(node)
    state.costs = _costs({card.model for node in nodes for card in node.cards}, prices_nano or {})
    return state


def _costs(models: Collection[str], prices_nano: Mapping[str, int]) -> dict[str, ModelCosts]:
    """By model: power as the catalogue knows it, and the price."""
    known = {model: catalogue.lookup(model) for model in models}
    most_watts = max((found.tdp_watts for found in known.values() if found is not None), default=1)
    most_nano = max((prices_nano.get(model, 0) for model in models), default=0) or 1
    costs: dict[str, ModelCosts] = {}
    for model, found in known.items():
        idle = 0 if found is None else found.idle_watts or 0
        working = 0 if found is None else found.tdp_watts - idle
        price = prices_nano.get(model, 0) * SHARE_WHOLE_PPM // most_nano
        costs[model] = ModelCosts(
            working * SHARE_WHOLE_PPM // most_watts, idle * SHARE_WHOLE_PPM // most_watts, price
        )  # fmt: skip
    return costs


class _Planning:
    """One plan in the making."""

    def __init__(self, fleet: Fleet, arrivals: Mapping[Request, int], snapshot: Snapshot) -> None:
        self._snapshot, self._fleet = snapshot, fleet
        self._nodes, self._state, self._engine = fleet.nodes, fleet.state, fleet.engine
        self._now = {node.name: node for node in snapshot.nodes}
        fleet.expect(*self._expected(arrivals), _tiers(self._nodes, self._state.models))

    def run(self, requests: Sequence[Request], now_us: int) -> Plan:
        placements: list[Placement] = []
        refusals: list[Refusal] = []
        # Placing only ever takes: what was refused once in this plan is refused again, so a long queue costs little.
        refused: dict[Request, Refusal] = {}
        for request in requests:
            kind = _kind(request)
            placed = None if kind in refused else self._place(request)
            if placed is not None:
                placements.append(placed)
                continue
            if kind not in refused:
                refused[kind] = self._refuse(request, now_us)
            refusals.append(replace(refused[kind], lease_id=request.lease_id))
        return Plan(self._snapshot.version, tuple(placements), tuple(refusals))

    def _place(self, request: Request) -> Placement | None:
        class_ = self._engine.class_of(self._want(request))
        where = self._engine.choose(class_)
        if where is None:
            return None
        seen = self._engine.look(class_, where.node)
        self._engine.take(class_, where)
        self._fleet.touched.add(where.node)
        node = self._nodes[where.node]
        uuids = tuple(node.cards[card].uuid for card in where.cards)
        self._now[node.name] = self._now[node.name].taking(uuids, request)
        return Placement(request.lease_id, node.name, uuids, "fragmentation_aware", dict(seen.terms) if seen else {})

    def _refuse(self, request: Request, now_us: int) -> Refusal:
        now = replace(self._snapshot, nodes=tuple(self._now.values()))
        return BestFit().plan(now, (request,), now_us).refusals[0]

    def _want(self, request: Request) -> Want:
        model = request.card_model
        return Want(
            request.cpu_milli,
            request.memory_bytes,
            request.count,
            request.shape.compute_ppm,
            request.shape.memory_bytes,
            ANY_MODEL if model is None else self._state.model_set([model]),
            MODES[request.mode],
        )

    def _expected(self, arrivals: Mapping[Request, int]) -> tuple[list[Typical], int]:
        """What came, and the catalogue's shapes of the cards that are here."""
        sizes = {(card.model, card.memory_bytes) for node in self._nodes for card in node.cards}
        counts: Counter[Want] = Counter()
        for model, memory_bytes in sizes:
            for name, often in PRIOR_SHAPES.items():
                shape, parts = SliceShape.fraction(memory_bytes, FRACTIONS[name]), FRACTIONS[name]
                want = Want(
                    PRIOR_CPU_MILLI // parts, 0, 1, shape.compute_ppm, shape.memory_bytes,
                    self._state.model_set([model]),
                )  # fmt: skip
                counts[want] += often * PRIOR_WORTH
        scale = max(1, counts.total() // PRIOR_WORTH)
        for request, count in arrivals.items():
            if request.count:
                counts[self._want(request)] += count * scale
        common = counts.most_common(MOST)
        total = max(1, sum(count for _, count in common))
        mix = [Typical(want, max(1, count * WEIGHTS_SUM // total)) for want, count in common]
        return mix, cpu_per_card_milli(counts)


def _tiers(nodes: Sequence[NodeView], models: Sequence[str]) -> list[int]:
    """How much dearer each model is than the smallest, told from its memory; without a wish it is the smaller."""
    memory = {card.model: card.memory_bytes for node in nodes for card in node.cards}
    least, most = min(memory.values(), default=0), max(memory.values(), default=1)
    return [(memory[model] - least) * SHARE_WHOLE_PPM // max(1, most) for model in models]
