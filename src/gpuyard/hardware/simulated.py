"""Simulated cards: the fleet that a spec text or a fleet file describes, behind the same protocol as real ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid5

from gpuyard.catalog import cards
from gpuyard.catalog.cards import CardModel
from gpuyard.catalog.mig import profiles_of
from gpuyard.hardware.probe import Finding, ProbeReport
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card, Node
from gpuyard.model.mig import MigCard
from gpuyard.model.topology import Link, LinkKind, Topology, format_cpu_list
from gpuyard.model.units import GIB

MAX_CARDS: Final = 100_000
EXAMPLE: Final = "8xRTX4090,2xH100"
LOCAL: Final = "local"
DRIVER: Final = "simulated"
NVLINK_MBPS: Final = 50_000  # of one link of the third and fourth generation, both directions
MAX_TOPOLOGY_CARDS: Final = 64  # a matrix grows with the square; no real node has more

# A namespace of our own, so that a simulated UUID can never be that of a real card.
_NAMESPACE: Final = UUID("6f9a3f0e-6f2d-5a0c-9a6e-3f1d0f7c9b41")
_PART = re.compile(r"(?:([0-9]{1,12})\s*x\s*)?(\S(?:.*?\S)?)(:mig)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class CardGroup:
    """So many cards of a model, all in MIG mode or none."""

    model: CardModel
    count: int
    mig: bool = False


def parse_spec(text: str) -> tuple[CardGroup, ...]:
    """Models and how many of each, from `8xRTX4090,2xH100,1xH100:mig`; a model alone counts once.

    Raises YardError `fleet_spec_invalid`, `unknown_card_model` with the nearest name, or `mig_not_there`.
    """
    parts: list[CardGroup] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        # Without a count it must be a bare name: -1xL4, 1e30xL4 and 8x are counts that went wrong, not models.
        if match is None or (match[1] is None and not match[2][0].isalpha()):
            raise _refuse(text)
        count = 1 if match[1] is None else int(match[1])
        if not 1 <= count <= MAX_CARDS:
            raise _refuse(text)
        group = CardGroup(cards.find(match[2]), count, match[3] is not None)
        if group.mig and group.model.mig_instances is None:
            raise YardError("mig_not_there", model=group.model.name)
        parts.append(group)
    if sum(group.count for group in parts) > MAX_CARDS:
        raise _refuse(text)
    return tuple(parts)


def simulated_node(
    name: str,
    models: Iterable[CardGroup],
    cpu_milli: int | None = None,
    memory_bytes: int | None = None,
    rack: str | None = None,
    region: str | None = None,
    topology: Topology | None = None,
) -> Node:
    """A node with these cards. Unless told otherwise it has 8 cores and 64 GiB per card, and at least 16 cores and
    128 GiB. The same arguments always give the same cards, so that a restart finds them again."""
    each = [group for group in models for _ in range(group.count)]
    count = len(each)
    cpu_milli = max(16, 8 * count) * 1000 if cpu_milli is None else cpu_milli
    cards = tuple(_card(name, group, index, count) for index, group in enumerate(each))
    return Node(
        name=name,
        cpu_milli=cpu_milli,
        memory_bytes=max(128, 64 * len(each)) * GIB if memory_bytes is None else memory_bytes,
        cards=cards,
        rack=rack,
        region=region,
        simulated=True,
        topology=topology.named([card.pci_address for card in cards])
        if topology
        else _topology(cards, [group.model for group in each], cpu_milli),
    )


class SimulatedProbe:
    """Reports the nodes it was given, less the cards that were told to be lost."""

    name = "simulated"

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        self._lost: frozenset[str] = frozenset()

    @classmethod
    def from_spec(cls, text: str, node: str = LOCAL) -> SimulatedProbe:
        """One node with the cards of a spec such as `8xRTX4090,2xH100`. Raises as `parse_spec` does."""
        return cls((simulated_node(node, parse_spec(text)),))

    def lose(self, uuid: str) -> None:
        """From now on this card is not found."""
        self._lost |= {uuid}

    def recover(self, uuid: str) -> None:
        """The card is found again."""
        self._lost -= {uuid}

    def probe(self) -> ProbeReport:
        """The nodes as they are now."""
        nodes = self._nodes if not self._lost else tuple(self._without_lost(node) for node in self._nodes)
        count = sum(len(node.cards) for node in nodes)
        found = Finding("simulated_cards", bool(count), {"count": count, "nodes": len(nodes)})
        return ProbeReport(nodes, (found, *_find_mig(nodes)))

    def _without_lost(self, node: Node) -> Node:
        return replace(node, cards=tuple(card for card in node.cards if card.uuid not in self._lost))


def _find_mig(nodes: Iterable[Node]) -> list[Finding]:
    """Which models are in MIG mode, once each."""
    found: dict[str, MigCard] = {}
    for node in nodes:
        found.update({card.model: card.mig for card in node.cards if card.mig is not None})
    return [
        Finding("mig_simulated", True, {"model": model, "profiles": ", ".join(p.name for p in mig.profiles)})
        for model, mig in found.items()
    ]


def _card(node: str, group: CardGroup, index: int, count: int) -> Card:
    model = group.model
    uuid = f"GPU-{uuid5(_NAMESPACE, f'{node}/{index}/{model.name}')}"
    # Up to 16 cards hang on one PCI domain, as behind the switches of a server; the second half on socket 1.
    domain, slot = divmod(index, 16)
    return Card(
        uuid=uuid,
        model=model.name,
        node=node,
        pci_address=f"{domain:04x}:{slot * 8 + 1:02x}:00.0",
        memory_bytes=model.memory_bytes,
        numa_node=int(index >= (count + 1) // 2),
        driver=DRIVER,
        simulated=True,
        mig=MigCard(uuid, True, profiles_of(model)) if group.mig else None,
    )


def _topology(cards: Sequence[Card], models: Sequence[CardModel], cpu_milli: int) -> Topology | None:
    """As such servers are built: neighbours share a PCIe switch, each half hangs on a socket of its own, and NVLink
    joins as many cards of a model as the catalogue says."""
    if len(cards) > MAX_TOPOLOGY_CARDS:
        return None
    half = (len(cards) + 1) // 2
    cores = max(1, cpu_milli // 1000)

    def link(a: int, b: int) -> Link:
        if a == b:
            return Link(LinkKind.SELF)
        joined = models[a].nvlink_cards
        if joined is not None and models[a].name == models[b].name and a // joined == b // joined:
            return Link(LinkKind.NVLINK, max(1, (models[a].nvlink_mbps or 0) // NVLINK_MBPS))
        if (a >= half) != (b >= half):
            return Link(LinkKind.SYS)
        return Link(LinkKind.PIX if a // 2 == b // 2 else LinkKind.NODE)

    def cpus(index: int) -> str:
        first, last = (0, max(1, cores // 2)) if index < half or cores == 1 else (cores // 2, cores)
        return format_cpu_list(frozenset(range(first, last)))

    order = range(len(cards))
    return Topology(
        devices=tuple(card.pci_address for card in cards),
        links=tuple(tuple(link(a, b) for b in order) for a in order),
        cpus=tuple(cpus(index) for index in order),
        numa=tuple(card.numa_node for card in cards),
    )


def _refuse(text: str) -> YardError:
    return YardError("fleet_spec_invalid", value=text[:64], example=EXAMPLE, maximum=MAX_CARDS)
