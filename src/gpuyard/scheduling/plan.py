"""The values that a scheduler reads and returns, and its protocol."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from gpuyard.model.mig import MigCard, MigCut
from gpuyard.model.slices import SliceShape
from gpuyard.model.topology import Topology
from gpuyard.model.units import SHARE_WHOLE_PPM


@dataclass(frozen=True, slots=True)
class CardView:
    """What a scheduler sees of a card."""

    uuid: str
    model: str
    memory_bytes: int
    memory_free_bytes: int
    compute_free_ppm: int
    schedulable: bool = True
    pci_address: str | None = None  # the card's name in its node's topology
    mode: str | None = None  # how what is on it shares it, a name of `state.MODES`; None: as usual
    paid: bool = False  # a lease that is not spot is on it
    mig: MigCard | None = None  # where MIG mode is on: what it can be cut into, and is; see `mig_slices`

    @property
    def empty(self) -> bool:
        """Whether nothing is on it."""
        return self.memory_free_bytes >= self.memory_bytes and self.compute_free_ppm >= SHARE_WHOLE_PPM

    def admits(self, mode: str) -> bool:
        """Whether slices of this mode may join what is on it: none may where either wants the card to itself."""
        return self.empty or (self.mode or "shared") == mode != "exclusive"

    def holds(self, shape: SliceShape) -> bool:
        """Whether the shape fits what is free now."""
        return self.memory_free_bytes >= shape.memory_bytes and self.compute_free_ppm >= shape.compute_ppm

    def takes(self, request: Request) -> bool:
        """Whether a slice of the request could be cut from it now, of any size. Not from a card in MIG mode, and not
        for a request that is for such cards alone."""
        able = self.schedulable and self.mig is None and request.mode != "mig"
        able = able and request.card_model in (None, self.model)
        return able and self.holds(request.shape) and self.admits(request.mode)

    def with_instance(self, cut: MigCut) -> CardView:
        """The card once that MIG instance is on it. Raises ValueError where it has no such profile."""
        return self._instance(cut, -1)

    def without_instance(self, cut: MigCut) -> CardView:
        """The card once that MIG instance is gone. Raises ValueError where it has no such profile."""
        return self._instance(cut, 1)

    def _instance(self, cut: MigCut, sign: int) -> CardView:
        profile = self.mig.profile(cut.place.profile_id) if self.mig is not None else None
        if self.mig is None or profile is None:
            raise ValueError(f"{self.uuid} has no MIG instances of {cut.profile}")
        shape = self.mig.shape(profile)
        return replace(
            self,
            memory_free_bytes=self.memory_free_bytes + sign * shape.memory_bytes,
            compute_free_ppm=self.compute_free_ppm + sign * shape.compute_ppm,
            mig=self.mig.taking(cut.place) if sign < 0 else self.mig.without(cut.place),
        )


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a scheduler sees of a node."""

    name: str
    cpu_free_milli: int
    memory_free_bytes: int
    cards: tuple[CardView, ...]
    schedulable: bool = True
    rack: str | None = None
    topology: Topology | None = None

    def taking(self, card_uuids: Collection[str], request: Request, mig: MigCut | None = None) -> NodeView:
        """The node once `request` holds a slice of each of these cards, or that MIG instance of the one of them; less
        than nothing may be left."""
        if mig is not None:
            return replace(
                self,
                cpu_free_milli=self.cpu_free_milli - request.cpu_milli,
                memory_free_bytes=self.memory_free_bytes - request.memory_bytes,
                cards=tuple(card.with_instance(mig) if card.uuid in card_uuids else card for card in self.cards),
            )
        memory, compute = request.shape.memory_bytes, request.shape.compute_ppm
        return replace(
            self,
            cpu_free_milli=self.cpu_free_milli - request.cpu_milli,
            memory_free_bytes=self.memory_free_bytes - request.memory_bytes,
            cards=tuple(
                replace(
                    card,
                    memory_free_bytes=card.memory_free_bytes - memory,
                    compute_free_ppm=card.compute_free_ppm - compute,
                    mode=request.mode,
                    paid=card.paid or not request.spot,
                )
                if card.uuid in card_uuids
                else card
                for card in self.cards
            ),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one moment. `version` changes with every grant and release; a plan is applied only to its own."""

    version: int
    nodes: tuple[NodeView, ...]
    prices_nano: Mapping[str, int] = field(default_factory=dict[str, int])  # of a whole card for an hour, by model

    def with_nodes(self, changed: Mapping[str, NodeView]) -> Snapshot:
        """The same fleet with these nodes as they are given."""
        if not changed:
            return self
        return replace(self, nodes=tuple(changed.get(node.name, node) for node in self.nodes))


@dataclass(frozen=True, slots=True)
class Request:
    """One lease that wants `count` slices of `shape` on different cards of one node. `card_model` None: any."""

    lease_id: str
    shape: SliceShape
    count: int
    card_model: str | None
    cpu_milli: int
    memory_bytes: int
    group: str | None = None  # requests of one group are a gang: all are placed or none
    tenant_id: str = ""
    priority: int = 0
    spot: bool = False
    created_us: int = 0  # since when it waits
    time_limit_us: int | None = None  # None: it may run for ever
    mode: str = "shared"  # how its slices share their cards, a name of `state.MODES`
    instances: bool = True  # whether what runs it can put it into a MIG instance


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a lease goes, and why there."""

    lease_id: str
    node: str
    card_uuids: tuple[str, ...]
    why: str = "best_fit"
    terms: Mapping[str, object] = field(default_factory=dict[str, object])  # what spoke for it, by name
    cpus: str | None = None  # the processors nearest to the cards, as a Linux CPU list
    mig: MigCut | None = None  # what its one card is to be cut into for it, where that is in MIG mode


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What one node lacked: a reason key (no_free_card, no_cpu, no_memory, cordoned,
    other_model, other_mode, gang, mig_no_place, mig_too_large, mig_one_slice) and the numbers."""

    node: str
    lacks: str
    params: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lease got nothing now, node by node, and what would fit instead.

    `largest_fit` is the largest shape (of the model asked for) that `count` cards of one node could take now.
    `ever` is False where even an empty fleet could not hold the request.
    """

    lease_id: str
    shortfalls: tuple[Shortfall, ...]
    largest_fit: SliceShape | None
    ever: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Placements for some requests and refusals for the rest, valid for one snapshot version."""

    snapshot_version: int
    placements: tuple[Placement, ...]
    refusals: tuple[Refusal, ...]


class Scheduler(Protocol):
    """Pure: the same snapshot, requests and moment always give the same plan."""

    @property
    def name(self) -> str:
        """What placements name as the reason."""
        ...

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """Requests are taken in their order; an earlier placement takes from what later ones see."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A scheduler that can weigh how near the cards of a request are to each other against all else."""

    @property
    def weighs_topology(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Learning(Protocol):
    """A scheduler that places by what came so far."""

    def having_seen(self, requests: Sequence[Request]) -> Scheduler:
        """The scheduler that knows of these arrivals too; this one is left as it is."""
        ...
