"""How near the cards of a request are to each other, for many nodes at once: the numbers of `native/topology.c`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuyard.scheduling.engine import NEVER
from gpuyard.scheduling.state import Distances, State
from gpuyard.scheduling.vector_columns import Ints


@dataclass(frozen=True, slots=True)
class Links:
    """`table` by node: the number of its distances, -1 where they are not known; `distance` [tables, width, width]."""

    table: Ints
    distance: Ints

    @classmethod
    def of(cls, state: State) -> Links:
        """The links of a fleet; nodes that are alike share a table."""
        width = max(1, state.width)
        numbers: dict[Distances, int] = {}
        table = np.full(state.nodes, -1, np.int64)
        for node, distances in state.links.items():
            table[node] = numbers.setdefault(distances, len(numbers))
        distance = np.zeros((max(1, len(numbers)), width, width), np.int64)
        for distances, number in numbers.items():
            distance[number, : len(distances), : len(distances)] = distances
        return cls(table, distance)

    @property
    def any(self) -> bool:
        """Whether anything is known of any node."""
        return bool((self.table >= 0).any())

    def farness(self, node: Ints, card: Ints) -> Ints:
        """Of the cards [choices, slices] on these nodes: fifteen sixteenths of the farthest pair, one of the mean."""
        slices = card.shape[1]
        if slices < 2 or not self.any:
            return np.zeros(len(node), np.int64)
        first, second = np.triu_indices(slices, 1)
        steps = self.distance[self.table[node][:, None], card[:, first], card[:, second]]
        value: Ints = (15 * steps.max(axis=1) + steps.sum(axis=1) // len(first)) // 16
        return np.where(self.table[node] >= 0, value, 0)

    def grow(self, node: Ints, able: np.ndarray, share: Ints, slices: int) -> tuple[Ints, Ints, Ints]:
        """The sets that grow from each card of these nodes: (row, first card, cards in ascending order)."""
        row, first = np.nonzero(able & (self.table[node] >= 0)[:, None])
        table = self.table[node][row]
        worst, total = np.zeros((2, len(row), able.shape[1]), np.int64)
        taken = np.zeros((len(row), able.shape[1]), bool)
        each, last = np.arange(len(row)), first
        taken[each, last] = True
        for _ in range(slices - 1):
            step = self.distance[table, last]
            total += step
            np.maximum(worst, step, out=worst)
            last = _nearest(able[row] & ~taken, worst, total, share[row])
            taken[each, last] = True
        cards = np.nonzero(taken)[1].reshape(len(row), slices)
        return row, first, cards


def _nearest(left: np.ndarray, worst: Ints, total: Ints, share: Ints) -> Ints:
    """The first of those left whose key is least."""
    for key in (worst, total, share):
        keys = np.where(left, key, NEVER)
        left = left & (keys == keys.min(axis=1, keepdims=True))
    return left.argmax(axis=1)
