"""What the policies of others make of many nodes at once: the numbers of `native/peers.c`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.vector_columns import Ints, Kind
from gpuyard.scheduling.vector_nodes import Nodes, kind_of, pick

_MAX_CPU: Final = 128_000
_MAX_MILLI: Final = 8_000
_MILLI: Final = SHARE_WHOLE_PPM // 1000


def peer_costs(policy: str, nodes: Nodes, kind: Kind, rows: Ints) -> tuple[Ints, Ints, Mapping[str, Ints]]:
    """By node: cost and chosen cards; no terms."""
    want, columns, state = kind.want, nodes.columns, nodes.state[rows]
    order = {"binpack-spread": -1, "random": 0}.get(policy, 1)
    chosen = pick(nodes, kind, rows, order)
    idle, cpu = columns.share[state].sum(axis=1), nodes.cpu[rows]
    left = idle - want.share_sum_ppm
    if policy == "bestfit":
        whole = _MAX_CPU * _MAX_MILLI
        cost = -((100 * whole - 50 * ((cpu - want.cpu_milli) * _MAX_MILLI + left // _MILLI * _MAX_CPU)) // whole)
    elif policy == "dotprod":
        top = _MAX_MILLI * _MAX_MILLI * 256 * 2
        cost = -((100 * (top - cpu * want.cpu_milli - 256 * (idle // _MILLI) * (want.share_sum_ppm // _MILLI))) // top)
    elif policy == "packing":
        cost = _packing(nodes, kind, rows, chosen)
    elif policy == "clustering":
        cost = _clustering(nodes, kind, rows, idle)
    elif policy == "random":
        cost = _random(nodes, rows)
    else:
        cost = idle * 1000 // np.maximum(1, nodes.cards[rows] * SHARE_WHOLE_PPM)
    return cost, chosen, {}


def _packing(nodes: Nodes, kind: Kind, rows: Ints, chosen: Ints) -> Ints:
    columns, state, slices = nodes.columns, nodes.state[rows], kind.want.slices
    if slices == 0:
        return np.zeros(len(rows), np.int64)
    empty: Ints = columns.empty[state].sum(axis=1)
    taken = np.take_along_axis(state, chosen, axis=1)
    fresh: Ints = columns.empty[taken].sum(axis=1)
    percent: Ints = (columns.share[taken] // (SHARE_WHOLE_PPM // 100)).sum(axis=1)
    used: Ints = np.maximum(100 - percent // 10, 50)
    used[fresh > 0] = np.maximum(50 - fresh, 33)[fresh > 0]
    free = empty == nodes.cards[rows]
    used[free] = np.maximum(33 - empty, empty)[free]
    return -used


def _clustering(nodes: Nodes, kind: Kind, rows: Ints, idle: Ints) -> Ints:
    if kind.want.slices == 0:
        return np.zeros(len(rows), np.int64)
    kinds = nodes.kinds[rows]
    different = (kinds[:, 1:] > 0).sum(axis=1)
    own = kinds[:, kind_of(kind.want)] > 0
    base = np.where(own, np.where(different == 1, 75, 50), np.where(different == 0, 25, 0))
    # Rounded towards nought, as the kernel divides; it is never below nought for up to eight cards.
    used = 25 * (_MAX_MILLI - idle // _MILLI)
    return -(base + np.sign(used) * (np.abs(used) // _MAX_MILLI))


def _random(nodes: Nodes, rows: Ints) -> Ints:
    mask = (1 << 64) - 1
    salt = (nodes.seed * 0x9E3779B97F4A7C15 + nodes.decisions * 0xBF58476D1CE4E5B9) & mask
    x = rows.astype(np.uint64) + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)
