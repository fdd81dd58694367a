"""Nodes and cards."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, select, text

from gpuyard.model.fleet import Card, Node
from gpuyard.model.mig import MigCard
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.topology import Topology
from gpuyard.store.tables import CARDS, COUNTERS, NODES

_SAVE_NODE = text(
    "INSERT INTO nodes (name, cpu_milli, memory_bytes, rack, region, simulated, state, updated_us, topology) "
    "VALUES (:name, :cpu_milli, :memory_bytes, :rack, :region, :simulated, :state, :updated_us, :topology) "
    "ON CONFLICT (name) DO UPDATE SET cpu_milli = excluded.cpu_milli, memory_bytes = excluded.memory_bytes, "
    "rack = excluded.rack, region = excluded.region, simulated = excluded.simulated, updated_us = excluded.updated_us, "
    "topology = excluded.topology"
)
_SAVE_CARD = text(
    "INSERT INTO cards (uuid, model, node, pci_address, memory_bytes, numa_node, driver, simulated, state, mig) "
    "VALUES (:uuid, :model, :node, :pci_address, :memory_bytes, :numa_node, :driver, :simulated, :state, :mig) "
    "ON CONFLICT (uuid) DO UPDATE SET model = excluded.model, node = excluded.node, "
    "pci_address = excluded.pci_address, memory_bytes = excluded.memory_bytes, numa_node = excluded.numa_node, "
    "driver = excluded.driver, simulated = excluded.simulated, mig = excluded.mig"
)
_NODES = select(NODES).order_by(NODES.c.name)
_CARDS = select(CARDS).order_by(CARDS.c.node, CARDS.c.pci_address, CARDS.c.uuid)
_VERSION = select(COUNTERS.c.value).where(COUNTERS.c.name == "fleet")


def save_node(c: Connection, node: Node, now_us: int) -> None:
    """Writes the node and its cards. States of what is known already stay; its cards that are not given stay too."""
    c.execute(
        _SAVE_NODE,
        {
            "name": node.name,
            "cpu_milli": node.cpu_milli,
            "memory_bytes": node.memory_bytes,
            "rack": node.rack,
            "region": node.region,
            "simulated": node.simulated,
            "state": node.state.value,
            "updated_us": now_us,
            "topology": None if node.topology is None else node.topology.to_json(),
        },
    )
    if node.cards:
        c.execute(_SAVE_CARD, [_card_values(card) for card in node.cards])


def _card_values(card: Card) -> dict[str, object]:
    return {
        "uuid": card.uuid,
        "model": card.model,
        "node": card.node,
        "pci_address": card.pci_address,
        "memory_bytes": card.memory_bytes,
        "numa_node": card.numa_node,
        "driver": card.driver,
        "simulated": card.simulated,
        "state": card.state.value,
        "mig": None if card.mig is None else card.mig.to_json(),
    }


def nodes(c: Connection) -> list[Node]:
    """Every node that was ever seen, by name, with its cards by PCI address."""
    held: dict[str, list[Card]] = defaultdict(list)
    for card in cards(c):
        held[card.node].append(card)
    return [replace(_node(row), cards=tuple(held[row.name])) for row in c.execute(_NODES)]


def cards(c: Connection) -> list[Card]:
    """Every card that was ever seen, by node and PCI address."""
    return [_card(row) for row in c.execute(_CARDS)]


def set_card_state(c: Connection, uuid: str, state: CardState) -> None:
    """Sets a card's state."""
    c.execute(CARDS.update().where(CARDS.c.uuid == uuid).values(state=state.value))


def set_node_state(c: Connection, name: str, state: NodeState) -> None:
    """Sets a node's state."""
    c.execute(NODES.update().where(NODES.c.name == name).values(state=state.value))


def version(c: Connection) -> int:
    """A number that changes whenever what a plan depends on has changed."""
    return c.execute(_VERSION).scalar_one()


def advance(c: Connection, expected: int) -> bool:
    """Moves the version on, if it still is what was expected; the row stays locked until the transaction ends."""
    moved = c.execute(
        COUNTERS.update().where(COUNTERS.c.name == "fleet", COUNTERS.c.value == expected).values(value=expected + 1)
    )
    return moved.rowcount == 1


def _node(row: Row[Any]) -> Node:
    return Node(
        name=row.name,
        cpu_milli=row.cpu_milli,
        memory_bytes=row.memory_bytes,
        rack=row.rack,
        region=row.region,
        simulated=bool(row.simulated),
        state=NodeState(row.state),
        topology=None if row.topology is None else _topology(row.topology),
    )


@lru_cache(maxsize=256)  # servers are alike, and a matrix is read once
def _topology(text: str) -> Topology:
    return Topology.from_json(text)


def _card(row: Row[Any]) -> Card:
    return Card(
        uuid=row.uuid,
        model=row.model,
        node=row.node,
        pci_address=row.pci_address,
        memory_bytes=row.memory_bytes,
        numa_node=row.numa_node,
        driver=row.driver,
        simulated=bool(row.simulated),
        state=CardState(row.state),
        mig=None if row.mig is None else _mig(row.uuid, row.mig),
    )


@lru_cache(maxsize=256)
def _mig(uuid: str, text: str) -> MigCard:
    return MigCard.from_json(uuid, text)
