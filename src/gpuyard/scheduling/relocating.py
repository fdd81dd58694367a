"""Which running leases of a yard are moved where: for a request that fits nowhere, or to empty nodes. Pure.

A move is carried out in two phases, so every target must be free while all sources are still held: sets of moves for
which that is not so are given up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuyard.scheduling.engine import Engine, EngineMaker
from gpuyard.scheduling.fragmentation_aware import in_order, state_of
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.moves import Holding, Holdings, MoveBudget, consolidate, make_room
from gpuyard.scheduling.plan import NodeView, Request, Snapshot
from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.running import Running, released
from gpuyard.scheduling.state import ANY_MODEL, MODES, MOST_CARDS, MOST_MODELS, Want, Where
from gpuyard.scheduling.windows import Window


@dataclass(frozen=True, slots=True)
class MovePolicy:
    """What an operator allows: moves in an hour for the whole yard and in a day for one lease, how many leases of one
    tenant may be on their way at once, and when nodes are emptied (None: never), as long as less than `low_load_ppm`
    of the pool is leased."""

    moves_an_hour: int = 20
    moves_a_day_each: int = 2
    at_once_of_tenant: int = 2
    window: Window | None = None
    low_load_ppm: int = 600_000


@dataclass(frozen=True, slots=True)
class Relocation:
    """One lease goes to these cards."""

    lease_id: str
    node: str
    card_uuids: tuple[str, ...]


# Whether these leases may be moved, all at once.
Allowed = Callable[[Sequence[str]], bool]


def relocate_for(
    make_engine: EngineMaker,
    snapshot: Snapshot,
    running: Sequence[Running],
    members: Sequence[Request],
    movable: Collection[str],
    most: int,
    allowed: Allowed,
) -> tuple[Relocation, ...]:
    """The moves after which all members fit; none where no allowed set of at most `most` moves was found."""
    if most <= 0 or not movable or not _fits_the_kernel(snapshot):
        return ()
    fleet = _Fleet(make_engine, snapshot, running, movable)
    try:
        for member in members:
            want = fleet.want(member.shape.compute_ppm, member.shape.memory_bytes, member, member.card_model)
            class_ = fleet.engine.class_of(want)
            if (where := fleet.engine.place(class_)) is None:
                room = make_room(fleet.engine, fleet.holdings, want, MoveBudget(at_once=most, tries=200))
                if room is None:
                    return ()
                where = room.where
                for move in room.moves:
                    fleet.holdings.moved(move)
            fleet.holdings.add(fleet.next_number(), Holding(want, class_, where, movable=False))
        moves = fleet.relocations()
    finally:
        fleet.engine.close()
    ids = [move.lease_id for move in moves]
    fits = 0 < len(ids) <= most and allowed(ids) and _free_now(snapshot, moves, running)
    return moves if fits else ()


def relocate_to_empty_nodes(
    make_engine: EngineMaker,
    snapshot: Snapshot,
    running: Sequence[Running],
    movable: Collection[str],
    most: int,
    allowed: Allowed,
) -> tuple[Relocation, ...]:
    """Moves that empty whole nodes, at most `most`."""
    if most <= 0 or not movable or not _fits_the_kernel(snapshot):
        return ()
    fleet = _Fleet(make_engine, snapshot, running, movable)
    try:
        consolidate(fleet.engine, fleet.holdings, most, MoveBudget(at_once=min(most, 32), tries=200))
        moves = fleet.relocations()
    finally:
        fleet.engine.close()
    node_of = {lease.lease_id: lease.node for lease in running}
    by_node: dict[str, list[Relocation]] = defaultdict(list)
    for move in moves:
        by_node[node_of[move.lease_id]].append(move)
    kept: list[Relocation] = []
    for node, group in by_node.items():
        tried = [*kept, *group]
        whole = len(group) == sum(1 for lease in running if lease.node == node)
        if whole and allowed([move.lease_id for move in tried]) and _free_now(snapshot, tried, running):
            kept = tried
    return tuple(kept)


def _fits_the_kernel(snapshot: Snapshot) -> bool:
    models = {card.model for node in snapshot.nodes for card in node.cards}
    widest = max((len(node.cards) for node in snapshot.nodes), default=0)
    return 0 < widest <= MOST_CARDS and len(models) <= MOST_MODELS


class _Fleet:
    """An engine on which everything that runs has been taken, and who holds what there."""

    def __init__(
        self, make_engine: EngineMaker, snapshot: Snapshot, running: Sequence[Running], movable: Collection[str]
    ) -> None:
        self._nodes = in_order(released(snapshot, running).nodes)
        self._leases = list(running)
        state = state_of(self._nodes, snapshot.prices_nano)
        self.engine: Engine = make_engine(state, Policy("gpuyard").where_stay(0), 0)
        LearntMix(len(self._nodes)).tell(self.engine)
        self.holdings = Holdings(state)
        self._state = state
        self._began: dict[int, Where] = {}
        self._added = len(self._leases)
        number = {node.name: at for at, node in enumerate(self._nodes)}
        for lease_number, lease in enumerate(self._leases):
            if (at := number.get(lease.node)) is not None:
                self._take(lease_number, lease, at, lease.lease_id in movable)

    def _take(self, number: int, lease: Running, at: int, movable: bool) -> None:
        cards = {card.uuid: (index, card.model) for index, card in enumerate(self._nodes[at].cards)}
        if not all(uuid in cards for uuid in lease.card_uuids):
            return  # a card is not there any more: its lease goes by itself
        models = {cards[uuid][1] for uuid in lease.card_uuids}
        # A lease stays on the model that it is on, which its price was set for.
        model = next(iter(models)) if len(models) == 1 else None
        shape = lease.shape
        want = Want(
            lease.cpu_milli, lease.memory_bytes, len(lease.card_uuids), shape.compute_ppm, shape.memory_bytes,
            ANY_MODEL if model is None else self._state.model_set([model]), MODES[lease.mode],
        )  # fmt: skip
        where = Where(at, tuple(cards[uuid][0] for uuid in lease.card_uuids))
        class_ = self.engine.class_of(want)
        if self.engine.take(class_, where):
            self.holdings.add(number, Holding(want, class_, where, movable and model is not None))
            self._began[number] = where

    def want(self, compute_ppm: int, card_memory_bytes: int, request: Request, model: str | None) -> Want:
        """A request in the engine's terms."""
        models = ANY_MODEL if model is None else self._state.model_set([model])
        return Want(
            request.cpu_milli, request.memory_bytes, request.count, compute_ppm, card_memory_bytes, models,
            MODES[request.mode],
        )  # fmt: skip

    def next_number(self) -> int:
        """A number for what is added."""
        self._added += 1
        return self._added

    def relocations(self) -> tuple[Relocation, ...]:
        """Where leases are now that began elsewhere; two moves of one lease are one."""
        found: list[Relocation] = []
        for number, began in self._began.items():
            where = self.holdings.leases[number].where
            if where != began:
                node = self._nodes[where.node]
                uuids = tuple(node.cards[card].uuid for card in where.cards)
                found.append(Relocation(self._leases[number].lease_id, node.name, uuids))
        return tuple(found)


def _free_now(snapshot: Snapshot, moves: Iterable[Relocation], running: Sequence[Running]) -> bool:
    """Whether every target is free beside all that runs, where it runs."""
    leases = {lease.lease_id: lease for lease in running}
    nodes: dict[str, NodeView] = {node.name: node for node in snapshot.nodes}
    for move in moves:
        lease = leases[move.lease_id]
        node = nodes[move.node]
        cards = {card.uuid: card for card in node.cards}
        room = all(cards[uuid].takes(_as_request(lease)) for uuid in move.card_uuids)
        cpu = node.cpu_free_milli >= lease.cpu_milli and node.memory_free_bytes >= lease.memory_bytes
        if not (room and cpu and node.schedulable):
            return False
        nodes[move.node] = node.taking(move.card_uuids, _as_request(lease))
    return True


def _as_request(lease: Running) -> Request:
    return Request(
        lease.lease_id, lease.shape, len(lease.card_uuids), None, lease.cpu_milli, lease.memory_bytes,
        spot=lease.spot, mode=lease.mode,
    )  # fmt: skip


def within_budget(
    tenant_of: Mapping[str, str], workload_of: Mapping[str, str], busy: Counter[str], most: int
) -> Allowed:
    """Allows sets with at most `most` leases of a tenant on their way, with those of `busy`, and one of a workload."""

    def allowed(lease_ids: Sequence[str]) -> bool:
        tenants = busy + Counter(tenant_of[lease_id] for lease_id in lease_ids)
        workloads = Counter(workload_of[lease_id] for lease_id in lease_ids)
        return max(tenants.values(), default=0) <= most and max(workloads.values(), default=0) <= 1

    return allowed
