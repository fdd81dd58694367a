"""What a placement would cost, for many nodes at once: the same numbers as `native/*.c`, where each is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import NEVER, Typical
from gpuyard.scheduling.policies import TERMS
from gpuyard.scheduling.state import Want
from gpuyard.scheduling.vector_columns import Columns, Ints, Kind
from gpuyard.scheduling.vector_topology import Links

KINDS: Final = 12
_TOPOLOGY: Final = TERMS.index("topology")
_MOST: Final = (1 << 31) - 1
Costs = tuple[Ints, Ints, Mapping[str, Ints]]  # by node: cost, chosen cards (padded), terms


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
        found = rates(nodes, kind, rows[some]) if rates else _peer(policy, nodes, kind, rows[some])
        cost[some], chosen[some], terms = found[0], found[1], dict(found[2])
    return cost, chosen, terms


def _pick(nodes: Nodes, kind: Kind, rows: Ints, order: int) -> Ints:
    """The first cards that fit: in their order, those with least left first (1) or with most left first (-1)."""
    state = nodes.state[rows]
    keys = nodes.columns.share[state] * order
    keys[kind.after[state] < 0] = NEVER
    return np.argsort(keys, axis=1, kind="stable")[:, : max(1, kind.want.slices)]


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
    picked = _pick(nodes, kind, rows, 1)
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
        at, card = np.arange(len(rows)), _pick(nodes, kind, rows, 0)
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


_MAX_CPU: Final = 128_000
_MAX_MILLI: Final = 8_000
_MILLI: Final = SHARE_WHOLE_PPM // 1000


def _peer(policy: str, nodes: Nodes, kind: Kind, rows: Ints) -> Costs:
    want, columns, state = kind.want, nodes.columns, nodes.state[rows]
    order = {"binpack-spread": -1, "random": 0}.get(policy, 1)
    chosen = _pick(nodes, kind, rows, order)
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
