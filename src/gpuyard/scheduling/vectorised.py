"""The engine in numpy. Its answers are those of the kernel in C, number for number; a test compares them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import NEVER, Choice, NodeFree, Typical
from gpuyard.scheduling.policies import Policy, fgd_steps
from gpuyard.scheduling.state import State, Want, Where
from gpuyard.scheduling.vector_columns import ABSENT, Columns, Ints, Kind
from gpuyard.scheduling.vector_costs import cost_of
from gpuyard.scheduling.vector_nodes import KINDS, Nodes, alike, kind_of
from gpuyard.scheduling.vector_topology import Links


class VectorisedEngine:
    """See `Engine`."""

    def __init__(self, state: State, policy: Policy, seed: int) -> None:
        self.policy = policy
        self._columns = Columns(state.costs_by_number())
        self._kinds: dict[Want, int] = {}
        self._classes: list[Kind] = []
        self._log: list[int] = []
        self._epoch = 0
        self._mix: tuple[Sequence[Typical], int] = ((), 1)
        self._tiers: Sequence[int] = ()
        self._nodes = Nodes(
            columns=self._columns,
            cpu=np.array(state.cpu_free_milli, np.int64),
            memory=np.array(state.memory_free_bytes, np.int64),
            cpu_total=np.array(state.cpu_total_milli, np.int64),
            open=np.array(state.open, np.int64),
            cards=np.array(state.cards, np.int64),
            state=np.full((state.nodes, max(1, state.width)), ABSENT, np.int64),
            kinds=np.zeros((state.nodes, KINDS), np.int64),
            weights=policy.weights,
            seed=seed,
            links=Links.of(state),
        )
        for node in range(state.nodes):
            self._put_cards(node, state)

    def _put_cards(self, node: int, state: State) -> None:
        for card in range(state.cards[node]):
            at = node * state.width + card
            self._nodes.state[node, card] = self._columns.row(
                (
                    state.share_free_ppm[at], state.card_memory_free_bytes[at], state.mode[at], state.model[at],
                    state.share_total_ppm[at], state.card_memory_total_bytes[at],
                )
            )  # fmt: skip

    def renew_node(self, node: int, state: State) -> None:
        nodes = self._nodes
        nodes.cpu[node], nodes.memory[node] = state.cpu_free_milli[node], state.memory_free_bytes[node]
        nodes.cpu_total[node], nodes.open[node] = state.cpu_total_milli[node], state.open[node]
        self._put_cards(node, state)
        self._log.append(node)

    def class_of(self, want: Want) -> int:
        found = self._kinds.get(want)
        if found is None:
            found = self._kinds[want] = len(self._classes)
            self._classes.append(Kind(want, len(self._nodes.cpu)))
        return found

    def set_mix(self, mix: Sequence[Typical], cpu_per_card_milli: int) -> None:
        self._mix = (mix, cpu_per_card_milli)
        self._columns.set_mix(mix, self._tiers)
        self._nodes.expect(mix, cpu_per_card_milli, fgd_steps(sum(weight for _, weight in mix)))
        self._epoch += 1

    def set_tiers(self, tiers_ppm: Sequence[int]) -> None:
        self._tiers = tiers_ppm
        self.set_mix(*self._mix)

    def reweigh(self, policy: Policy) -> None:
        if policy != self.policy:
            self.policy = policy
            self._nodes.weights = policy.weights
            self._epoch += 1

    def set_open(self, node: int, takes: bool) -> None:
        self._nodes.open[node] = int(takes)
        self._log.append(node)

    def choose(self, class_: int) -> Where | None:
        kind = self._classes[class_]
        self._nodes.decisions += 1
        self._refresh(kind)
        node = int(np.argmin(kind.cost)) if len(kind.cost) else 0
        if not len(kind.cost) or kind.cost[node] == NEVER:
            return None
        return Where(node, tuple(kind.chosen[node, : kind.want.slices].tolist()))

    def _refresh(self, kind: Kind) -> None:
        every = kind.epoch != self._epoch or kind.seen < 0 or self.policy.name == "random"
        rows = np.arange(len(self._nodes.cpu)) if every else np.unique(np.array(self._log[kind.seen :], np.int64))
        if every and self.policy.name == "gpuyard" and len(rows):
            self._rescore_all(kind)
        elif len(rows):
            kind.cost[rows], kind.chosen[rows], _ = cost_of(self.policy.name, self._nodes, kind, rows)
        kind.seen, kind.epoch = len(self._log), self._epoch

    def _rescore_all(self, kind: Kind) -> None:
        """A fleet has fewer states than nodes: what a node costs, its like costs too, but for its place in order."""
        nodes = self._nodes
        first, like = alike(nodes)
        cost, chosen, _ = cost_of("gpuyard", nodes, kind, first)
        order = np.arange(len(nodes.cpu)) * SHARE_WHOLE_PPM // len(nodes.cpu)
        later = self.policy.weight("order") * (order - order[first][like])
        kind.cost = np.where(cost[like] == NEVER, NEVER, cost[like] + later)
        kind.chosen = chosen[like]

    def place(self, class_: int) -> Where | None:
        where = self.choose(class_)
        if where is not None:
            self.take(class_, where)
        return where

    def take(self, class_: int, where: Where) -> bool:
        kind, nodes = self._classes[class_], self._nodes
        want, node = kind.want, where.node
        if nodes.cpu[node] < want.cpu_milli or nodes.memory[node] < want.memory_bytes:
            return False
        after: Ints = kind.know(self._columns)
        cards = list(where.cards)
        if len(set(cards)) != want.slices or any(
            not 0 <= card < nodes.cards[node] or after[nodes.state[node, card]] < 0 for card in cards
        ):
            return False
        nodes.state[node, cards] = after[nodes.state[node, cards]]
        self._change(kind, node, -1)
        return True

    def give(self, class_: int, where: Where) -> None:
        kind, nodes = self._classes[class_], self._nodes
        for card in where.cards:
            share, room, mode, model, most_share, most_room = self._columns.states[int(nodes.state[where.node, card])]
            share, room = share + kind.want.share_ppm, room + kind.want.card_memory_bytes
            left = 0 if (share, room) == (most_share, most_room) else mode
            nodes.state[where.node, card] = self._columns.row((share, room, left, model, most_share, most_room))
        self._change(kind, where.node, 1)

    def _change(self, kind: Kind, node: int, sign: int) -> None:
        self._nodes.cpu[node] += sign * kind.want.cpu_milli
        self._nodes.memory[node] += sign * kind.want.memory_bytes
        self._nodes.kinds[node, kind_of(kind.want)] -= sign
        self._log.append(node)

    def look(self, class_: int, node: int) -> Choice | None:
        kind = self._classes[class_]
        cost, chosen, terms = cost_of(self.policy.name, self._nodes, kind, np.array([node]))
        if cost[0] == NEVER:
            return None
        where = Where(node, tuple(int(card) for card in chosen[0][: kind.want.slices]))
        return Choice(where, {name: int(values[0]) for name, values in terms.items()})

    def free(self, node: int) -> NodeFree:
        nodes = self._nodes
        states = [self._columns.states[int(nodes.state[node, card])] for card in range(int(nodes.cards[node]))]
        cards = tuple((share, room, mode) for share, room, mode, *_ in states)
        return NodeFree(int(nodes.cpu[node]), int(nodes.memory[node]), cards)

    def close(self) -> None:
        """Nothing is held."""
