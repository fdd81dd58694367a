"""What a placement would cost, for many nodes at once: the same numbers as `native/*.c`, where each is explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import NEVER
from gpuyard.scheduling.policies import TERMS
from gpuyard.scheduling.vector_columns import Ints, Kind
from gpuyard.scheduling.vector_nodes import Nodes, pick
from gpuyard.scheduling.vector_peers import peer_costs

_TOPOLOGY: Final = TERMS.index("topology")
_MOST: Final = (1 << 31) - 1
Costs = tuple[Ints, Ints, Mapping[str, Ints]]  # by node: cost, chosen cards (padded), terms


def cost_of(policy: str, nodes: Nodes, kind: Kind, rows: Ints) -> Costs:
    """Costs of these nodes; NEVER where the request does not fit."""
    want, after = kind.want, kind.know(nodes.columns)
    fits = after[nodes.state[rows]] >= 0
    able = (nodes.open[rows] > 0) & (nodes.cpu[rows] >= want.cpu_milli) & (nodes.memory[rows] >= want.memory_bytes)
    able &= fits.sum(axis=1) >= want.slices
    some = np.flatnonzero(able)
    cost = np.full(len(rows), NEVER, np.int64)
    chosen = np.zeros((len(rows), max(1, want.slices)), np.int64)
    terms: dict[str, Ints] = {}
    if len(some):
        rates = {"gpuyard": _gpuyard, "fgd": _fgd}.get(policy)
        found = rates(nodes, kind, rows[some]) if rates else peer_costs(policy, nodes, kind, rows[some])
        cost[some], chosen[some], terms = found[0], found[1], dict(found[2])
    return cost, chosen, terms


def _options(nodes: Nodes, kind: Kind, rows: Ints) -> tuple[Ints, Ints]:
    """Every (node, card) that one slice fits, once for cards in the same state of a node, in order."""
    state = nodes.state[rows]
    at, card = np.nonzero(kind.after[state] >= 0)
    key = at * len(nodes.columns.states) + state[at, card]
    _, first = np.unique(key, return_index=True)
    first.sort()
    return at[first], card[first]


def _best(nodes: int, at: Ints, rank: Ints, cost: Ints) -> Ints:
    """By node the index of the cheapest of its options; of equals, of the one with the lowest rank."""
    order = np.lexsort((rank, cost, at))
    sorted_at = at[order]
    first = np.flatnonzero(np.r_[True, sorted_at[1:] != sorted_at[:-1]]) if len(order) else order
    picked = order[first]
    index = np.zeros(nodes, np.int64)
    index[at[picked]] = picked
    return index


def _choices(nodes: Nodes, kind: Kind, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """What is weighed against each other: (row, rank, cards), ranks in the order in which the kernel tries them."""
    want = kind.want
    if want.slices == 1:
        at, card = _options(nodes, kind, rows)
        return at, card, card[:, None]
    every = np.arange(len(rows))
    if want.slices == 0:
        return every, every, np.zeros((len(rows), 0), np.int64)
    picked = pick(nodes, kind, rows, 1)
    if want.slices < 2 or not nodes.links.any or not nodes.weights[_TOPOLOGY]:
        return every, np.zeros(len(rows), np.int64), picked
    state = nodes.state[rows]
    at, first, grown = nodes.links.grow(rows, kind.after[state] >= 0, nodes.columns.share[state], want.slices)
    ranks = np.concatenate([np.zeros(len(rows), np.int64), first + 1])
    return np.concatenate([every, at]), ranks, np.concatenate([picked, grown])


def _gpuyard(nodes: Nodes, kind: Kind, rows: Ints) -> Costs:
    want = kind.want
    at, rank, card = _choices(nodes, kind, rows)
    values = _terms(nodes, kind, rows, at, card)
    cost = np.zeros(len(at), np.int64)
    for weight, value in zip(nodes.weights, values, strict=True):
        cost += weight * value
    chosen = card if want.slices else np.zeros((len(rows), 1), np.int64)
    if len(at) == len(rows) and want.slices != 1:
        return cost, chosen, dict(zip(TERMS, values, strict=True))
    index = _best(len(rows), at, rank, cost)
    return cost[index], chosen[index], {name: v[index] for name, v in zip(TERMS, values, strict=True)}


def _terms(nodes: Nodes, kind: Kind, rows: Ints, at: Ints, card: Ints) -> tuple[Ints, ...]:
    """See `policies.TERMS`; of every choice."""
    want, columns = kind.want, nodes.columns
    state = nodes.state[rows]
    before = state[at[:, None], card]
    then = kind.after[before]
    cpu, memory = nodes.cpu[rows], nodes.memory[rows]
    slots = columns.copies[state].sum(axis=1)
    idle = columns.share[state].sum(axis=1)
    usable_now = _usable(nodes, slots, _by_resources(nodes, cpu, memory))
    by_then = _by_resources(nodes, cpu - want.cpu_milli, memory - want.memory_bytes)
    change = columns.copies[then].sum(axis=1) - columns.copies[before].sum(axis=1)
    usable_then = _usable(nodes, slots[at] + change, by_then[at])
    idle_then = idle[at] + columns.share[then].sum(axis=1) - columns.share[before].sum(axis=1)
    more = _excess(nodes, cpu[at] - want.cpu_milli, idle_then) - _excess(nodes, cpu, idle)[at]
    untouched = columns.empty[state].sum(axis=1) == nodes.cards[rows]
    if want.slices == 0:
        untouched &= cpu == nodes.cpu_total[rows]
    watts, price = _watts_and_price(nodes, kind, state, at, before, untouched)
    return (
        (usable_now[at] - usable_then) // nodes.total_weight - want.share_sum_ppm,
        columns.waste[then].sum(axis=1) - columns.waste[before].sum(axis=1),
        more * SHARE_WHOLE_PPM // nodes.cpu_per_card,
        untouched[at] * SHARE_WHOLE_PPM,
        rows[at] * SHARE_WHOLE_PPM // len(nodes.cpu),
        columns.tier[then].max(axis=1, initial=0),
        nodes.links.farness(rows[at], card),
        watts,
        price,
    )


def _watts_and_price(
    nodes: Nodes, kind: Kind, state: Ints, at: Ints, before: Ints, untouched: Ints
) -> tuple[Ints, Ints]:
    want, columns = kind.want, nodes.columns
    if not any(map(any, columns.model_costs)):
        return np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    idling = columns.costs[state, 1].sum(axis=1) * untouched
    working, price = columns.costs[before, 0], columns.costs[before, 2]
    room_total = columns.room_total[before]
    room_ppm = want.card_memory_bytes * SHARE_WHOLE_PPM // np.maximum(1, room_total)
    paid = np.maximum(np.where(room_total > 0, room_ppm, 0), want.share_ppm)
    watts = (want.share_ppm * working // SHARE_WHOLE_PPM).sum(axis=1) + idling[at]
    return watts, (paid * price // SHARE_WHOLE_PPM).sum(axis=1)


def _by_resources(nodes: Nodes, cpu: Ints, memory: Ints) -> Ints:
    """How many of each typical request CPU and memory allow."""
    by_cpu = np.where(nodes.m_cpu > 0, cpu[:, None] // np.maximum(1, nodes.m_cpu), _MOST)
    by_memory = np.where(nodes.m_memory > 0, memory[:, None] // np.maximum(1, nodes.m_memory), _MOST)
    return np.minimum(by_cpu, by_memory)


def _usable(nodes: Nodes, slots: Ints, by_resources: Ints) -> Ints:
    fit = np.minimum(slots // np.maximum(1, nodes.m_slices), by_resources)
    return (fit * nodes.m_value).sum(axis=1)


def _excess(nodes: Nodes, cpu: Ints, idle: Ints) -> Ints:
    return np.maximum(0, cpu - nodes.cpu_per_card * idle // SHARE_WHOLE_PPM)


def _fgd(nodes: Nodes, kind: Kind, rows: Ints) -> Costs:
    want, columns, state = kind.want, nodes.columns, nodes.state[rows]
    holds = (columns.copies > 0).astype(np.int64)
    used = holds * columns.share[:, None]
    one = want.slices == 1 and want.share_ppm < SHARE_WHOLE_PPM
    if one:
        at, card = np.nonzero(kind.after[state] >= 0)
        before = state[at, card][:, None]
    else:
        at, card = np.arange(len(rows)), pick(nodes, kind, rows, 0)
        before = np.take_along_axis(state, card[:, : want.slices], axis=1)
    then = kind.after[before]
    cpu, memory = nodes.cpu[rows], nodes.memory[rows]
    fitting, using, idle = holds[state].sum(axis=1), used[state].sum(axis=1), columns.share[state].sum(axis=1)
    now = _fragment(nodes, fitting, using, idle, cpu, memory)
    after = _fragment(
        nodes,
        fitting[at] + holds[then].sum(axis=1) - holds[before].sum(axis=1),
        using[at] + used[then].sum(axis=1) - used[before].sum(axis=1),
        idle[at] + columns.share[then].sum(axis=1) - columns.share[before].sum(axis=1),
        cpu[at] - want.cpu_milli,
        memory[at] - want.memory_bytes,
    )
    cost = -(np.searchsorted(nodes.steps, now[at] - after, side="right") - 1).astype(np.int64)
    if not one:
        return cost, card, {}
    index = _best(len(rows), at, card, cost)
    return cost[index], card[index][:, None], {}


def _fragment(nodes: Nodes, fitting: Ints, used: Ints, idle: Ints, cpu: Ints, memory: Ints) -> Ints:
    runs = (nodes.m_slices > 0) & (fitting >= nodes.m_slices)
    runs &= (cpu[:, None] >= nodes.m_cpu) & (memory[:, None] >= nodes.m_memory)
    return (nodes.m_weight * (idle[:, None] - np.where(runs, used, 0))).sum(axis=1)
