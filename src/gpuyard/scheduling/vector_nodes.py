"""The nodes of a fleet as arrays, for the numpy engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import NEVER, Typical
from gpuyard.scheduling.state import Want
from gpuyard.scheduling.vector_columns import Columns, Ints, Kind
from gpuyard.scheduling.vector_topology import Links

KINDS: Final = 12


def _none() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class Nodes:
    """The fleet as arrays by node, and what is expected to come."""

    columns: Columns
    cpu: Ints
    memory: Ints
    cpu_total: Ints
    open: Ints
    cards: Ints
    state: Ints  # [nodes, width] the row of each card
    kinds: Ints  # [nodes, KINDS] leases by kind of request
    weights: Sequence[int]
    seed: int
    links: Links
    decisions: int = 0
    cpu_per_card: int = 1
    total_weight: int = 1
    m_weight: Ints = field(default_factory=_none)
    m_value: Ints = field(default_factory=_none)
    m_slices: Ints = field(default_factory=_none)
    m_cpu: Ints = field(default_factory=_none)
    m_memory: Ints = field(default_factory=_none)
    steps: Ints = field(default_factory=_none)

    def expect(self, mix: Sequence[Typical], cpu_per_card_milli: int, steps: Sequence[int]) -> None:
        """Takes over the mix."""
        self.cpu_per_card = cpu_per_card_milli
        self.total_weight = sum(weight for _, weight in mix) or 1
        self.m_weight = np.array([weight for _, weight in mix], np.int64)
        self.m_value = np.array([weight * want.share_sum_ppm for want, weight in mix], np.int64)
        self.m_slices = np.array([want.slices for want, _ in mix], np.int64)
        self.m_cpu = np.array([want.cpu_milli for want, _ in mix], np.int64)
        self.m_memory = np.array([want.memory_bytes for want, _ in mix], np.int64)
        self.steps = np.array(steps, np.int64)


def alike(nodes: Nodes) -> tuple[Ints, Ints]:
    """The first of each sort of nodes that cost the same but for their place in the order, and by node its sort."""
    columns = np.column_stack(
        (nodes.cpu, nodes.memory, nodes.cpu_total, nodes.open, nodes.cards, nodes.links.table, nodes.state)
    )
    looks = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        looks = (looks ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        looks ^= looks >> np.uint64(29)
    _, first, like = np.unique(looks, return_index=True, return_inverse=True)
    if (columns[first][like] == columns).all():
        return first, like
    every = np.arange(len(columns))  # two sorts look alike, which happens once in an age: each node for itself
    return every, every


def kind_of(want: Want) -> int:
    """0 without cards, 1 part of a card, else one more than the cards."""
    if want.slices == 0:
        return 0
    return 1 if want.share_ppm < SHARE_WHOLE_PPM else min(want.slices + 1, KINDS - 1)


def pick(nodes: Nodes, kind: Kind, rows: Ints, order: int) -> Ints:
    """The first cards that fit: in their order, those with least left first (1) or with most left first (-1)."""
    state = nodes.state[rows]
    keys = nodes.columns.share[state] * order
    keys[kind.after[state] < 0] = NEVER
    return np.argsort(keys, axis=1, kind="stable")[:, : max(1, kind.want.slices)]
