"""Node and Card: what there is to lease."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuyard.model.mig import MigCard
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.topology import Topology


@dataclass(frozen=True, slots=True)
class Card:
    """One physical GPU, known by UUID and PCI address, never by index."""

    uuid: str
    model: str  # a catalogue name, e.g. RTX4090
    node: str
    pci_address: str
    memory_bytes: int
    numa_node: int | None = None
    driver: str | None = None
    simulated: bool = False
    state: CardState = CardState.HEALTHY
    mig: MigCard | None = None  # where MIG mode is on: what it can be cut into; it is sold in no other way then


@dataclass(frozen=True, slots=True)
class Node:
    """A server: what it can give to units besides cards, and where it stands."""

    name: str
    cpu_milli: int
    memory_bytes: int
    cards: tuple[Card, ...] = field(default=())
    rack: str | None = None
    region: str | None = None
    simulated: bool = False
    state: NodeState = NodeState.READY
    topology: Topology | None = None  # of its cards, by PCI address; None: not known
