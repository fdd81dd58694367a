"""The most that any placement could have allocated, were every pod that the reference placed to stay: a linear programme.

Servers are summed by type (CPU, memory, cards), cards are filled by a flow over arcs as long as the shares, and pods may be
split. All of that only loosens, so the bound is never below what can be reached. It needs scipy (the extra `demo`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from gpuyard.simulation.traces import TraceNode, TracePod

STEP_PPM = 10_000
UNITS = 100

Kind = tuple[int, int, int, int, tuple[str, ...]]  # cpu, memory, cards, share, models


def kind_of(pod: TracePod) -> Kind:
    return pod.cpu_milli, pod.memory_bytes, pod.cards, pod.share_ppm, pod.models


def keep_bound(nodes: Sequence[TraceNode], kept: Mapping[Kind, int], came: Mapping[Kind, int]) -> float:
    """In percent of all cards. `kept` must be placed, more of what `came` may be."""
    types = Counter((node.model, node.cpu_milli, node.memory_bytes, node.cards) for node in nodes)
    shapes, kinds = list(types), list(came)
    pairs = [
        (k, t)
        for k, kind in enumerate(kinds)
        for t, (model, cpu, memory, cards) in enumerate(shapes)
        if kind[0] <= cpu
        and kind[1] <= memory
        and kind[2] <= cards
        and (not kind[4] or not kind[2] or model in kind[4])
    ]
    sizes = sorted({-(-kind[3] // STEP_PPM) for kind in kinds if kind[2]})
    arcs = [(start, size) for start in range(UNITS) for size in sizes if start + size <= UNITS]
    stops = list(range(UNITS))  # what of a card stays idle from here on
    columns = len(pairs) + len(arcs) + len(stops)
    entries: list[tuple[int, int, float]] = []
    limits: list[float] = []

    def row(limit: float, cells: list[tuple[int, float]]) -> None:
        entries.extend((len(limits), column, value) for column, value in cells)
        limits.append(limit)

    for t, (_, cpu, memory, cards) in enumerate(shapes):
        own = [(at, kinds[k]) for at, (k, type_) in enumerate(pairs) if type_ == t]
        count = types[shapes[t]]
        row(count * cpu / 1000, [(at, kind[0] / 1000) for at, kind in own])
        row(count * memory / 2**30, [(at, kind[1] / 2**30) for at, kind in own])
        row(count * cards, [(at, kind[2] * kind[3] / 1e6) for at, kind in own])
    for k, kind in enumerate(kinds):
        own = [at for at, (k_, _) in enumerate(pairs) if k_ == k]
        row(came[kind], [(at, 1.0) for at in own])
        row(-kept.get(kind, 0), [(at, -1.0) for at in own])
    first = len(pairs)
    equal: list[tuple[int, int, float]] = []
    zero: list[float] = []
    for size in sizes:  # as many slices of a size as arcs of its length
        cells = [
            (at, float(kinds[k][2]))
            for at, (k, _) in enumerate(pairs)
            if kinds[k][2] and -(-kinds[k][3] // STEP_PPM) == size
        ]
        cells += [(first + at, -1.0) for at, arc in enumerate(arcs) if arc[1] == size]
        equal += [(len(zero), column, value) for column, value in cells]
        zero.append(0.0)
    for unit in range(UNITS):  # what flows into a point flows out of it; at the start, all cards
        cells = [(first + at, 1.0) for at, arc in enumerate(arcs) if arc[0] == unit]
        cells += [(first + at, -1.0) for at, arc in enumerate(arcs) if sum(arc) == unit]
        cells.append((first + len(arcs) + unit, 1.0))
        equal += [(len(zero), column, value) for column, value in cells]
        zero.append(float(sum(node.cards for node in nodes)) if unit == 0 else 0.0)
    gain = np.zeros(columns)
    for at, (k, _) in enumerate(pairs):
        gain[at] = -kinds[k][2] * kinds[k][3] / 1e6
    found = linprog(
        gain, _matrix(entries, len(limits), columns), limits, _matrix(equal, len(zero), columns), zero, method="highs"
    )
    if not found.success:
        raise ValueError(f"no bound: {found.message}")
    return float(-100 * found.fun / sum(node.cards for node in nodes))


def _matrix(entries: list[tuple[int, int, float]], rows: int, columns: int) -> coo_matrix:
    row, column, value = zip(*entries, strict=True)
    return coo_matrix((value, (row, column)), (rows, columns)).tocsr()
