"""A fleet file: several simulated nodes in TOML.

[[node]]
name = "gpu-1"
cards = "8xRTX4090"    # 2xH100:mig for cards in MIG mode
cpus = 64            # cores; optional
memory = "512GiB"    # optional
rack = "r1"          # optional
region = "cn-east"   # optional
topology = '''...'''  # optional: what `nvidia-smi topo -m` or `amd-smi topology` prints on such a server
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpuyard.catalog import rows
from gpuyard.hardware.simulated import EXAMPLE, MAX_CARDS, parse_spec, simulated_node
from gpuyard.hardware.topology_text import parse_topology
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Node
from gpuyard.model.names import check_name
from gpuyard.model.topology import Topology
from gpuyard.model.units import parse_size

CODE: Final = "fleet_file_invalid"
MAX_CPUS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeRow:
    name: str
    cards: str
    cpus: int | None = None
    memory: str | None = None
    rack: str | None = None
    region: str | None = None
    topology: str | None = None


def load(path: Path) -> tuple[Node, ...]:
    """The nodes of a fleet file, in its order. Raises YardError `fleet_file_invalid`."""
    return parse(*rows.read(path, CODE))


def parse(values: Mapping[str, Any], place: rows.Place) -> tuple[Node, ...]:
    """The nodes of a parsed fleet file. Raises YardError `fleet_file_invalid`."""
    rows.only(values, ("node",), place)
    nodes: dict[str, Node] = {}
    for row, at in rows.tables(values, "node", place):
        node = _node(rows.build(_NodeRow, row, at), at)
        if node.name in nodes:
            raise at.refuse("name", node.name, "unique")
        nodes[node.name] = node
    if (total := sum(len(node.cards) for node in nodes.values())) > MAX_CARDS:
        raise place.refuse("cards", total, f"<= {MAX_CARDS}")
    return tuple(nodes.values())


def _node(row: _NodeRow, at: rows.Place) -> Node:
    try:
        check_name(row.name)
    except YardError:
        raise at.refuse("name", row.name, "a-z 0-9 -, <= 63") from None
    try:
        models = parse_spec(row.cards)
    except YardError as error:
        raise at.refuse("cards", row.cards, _repaired(row.cards, error)) from None
    try:
        memory_bytes = None if row.memory is None else parse_size(row.memory)
    except YardError:
        raise at.refuse("memory", row.memory, "512GiB") from None
    if row.cpus is not None and row.cpus > MAX_CPUS:
        raise at.refuse("cpus", row.cpus, f"<= {MAX_CPUS}")
    cpu_milli = None if row.cpus is None else row.cpus * 1000
    topology = _topology(row, sum(group.count for group in models), at)
    return simulated_node(row.name, models, cpu_milli, memory_bytes, row.rack, row.region, topology)


def _topology(row: _NodeRow, cards: int, at: rows.Place) -> Topology | None:
    if row.topology is None:
        return None
    try:
        topology = parse_topology(row.topology)
    except YardError as error:
        raise at.refuse("topology", str(error.params["found"]), str(error.params["expected"])) from None
    if len(topology.devices) != cards:
        raise at.refuse("topology", f"{len(topology.devices)} x GPU", f"{cards} x GPU")
    return topology


def _repaired(spec: str, error: YardError) -> str:
    """The spec with the model that is not known replaced by the nearest one, or an example."""
    if error.code == "mig_not_there":
        return spec.replace(":mig", "")
    if error.code != "unknown_card_model":
        return EXAMPLE
    return spec.replace(str(error.params["model"]), str(error.params["nearest"]), 1)
