"""The engine in C (`native/`). Built by `gpuyard.slicing.kernel`; who composes hands its path over."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import POINTER, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from gpuyard.scheduling.engine import NEVER, Choice, NodeFree, Typical
from gpuyard.scheduling.policies import MOST_TYPICAL, TERMS, Policy, fgd_steps
from gpuyard.scheduling.state import MOST_CARDS, MOST_MODELS, Distances, ModelCosts, State, Want, Where

_INTS = POINTER(c_int64)
_CARDS = POINTER(c_int32)
_SIGNATURES = {
    "gy_new": (c_void_p, (c_int32, c_int32, c_int32, _INTS, c_int64)),
    "gy_free": (None, (c_void_p,)),
    "gy_node": (None, (c_void_p, c_int32, _INTS)),
    "gy_card": (None, (c_void_p, c_int32, c_int32, _INTS)),
    "gy_open": (None, (c_void_p, c_int32, c_int32)),
    "gy_class": (c_int32, (c_void_p, _INTS)),
    "gy_mix": (None, (c_void_p, c_int32, _INTS, c_int64)),
    "gy_weights": (None, (c_void_p, _INTS)),
    "gy_tiers": (None, (c_void_p, _INTS)),
    "gy_costs": (None, (c_void_p, _INTS, _INTS, _INTS)),
    "gy_links": (c_int32, (c_void_p, _INTS)),
    "gy_linked": (None, (c_void_p, c_int32, c_int32)),
    "gy_fgd_steps": (None, (c_void_p, _INTS)),
    "gy_take": (c_int32, (c_void_p, c_int32, c_int32, _CARDS)),
    "gy_give": (None, (c_void_p, c_int32, c_int32, _CARDS)),
    "gy_read": (None, (c_void_p, c_int32, _INTS)),
    "gy_choose": (c_int32, (c_void_p, c_int32, _CARDS, _INTS)),
    "gy_place": (c_int32, (c_void_p, c_int32, _CARDS)),
    "gy_cost_at": (c_int64, (c_void_p, c_int32, c_int32, _CARDS, _INTS)),
}


@cache
def load(path: Path) -> ctypes.CDLL:
    """The kernel's library. Raises OSError where it is none."""
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _ints(values: Sequence[int]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(values))(*values)


class CompiledEngine:
    """See `Engine`."""

    def __init__(self, path: Path, state: State, policy: Policy, seed: int) -> None:
        if state.width > MOST_CARDS:
            raise ValueError(f"more than {MOST_CARDS} cards on a node")
        self.policy = policy
        self._kernel = load(path)
        self._fleet = self._kernel.gy_new(
            state.nodes, max(1, state.width), policy.number, _ints(policy.weights), seed & NEVER
        )
        self._classes: dict[Want, int] = {}
        self._wants: list[Want] = []
        self._cards = (c_int32 * MOST_CARDS)()
        self._terms = (c_int64 * len(TERMS))()
        self._card_counts = state.cards
        self._fill(state)
        self._fill_costs(state)

    def _fill(self, state: State) -> None:
        for node in range(state.nodes):
            self.renew_node(node, state)

    def renew_node(self, node: int, state: State) -> None:
        numbers = (
            state.cpu_free_milli[node], state.memory_free_bytes[node], state.cpu_total_milli[node], state.open[node]
        )  # fmt: skip
        self._kernel.gy_node(self._fleet, node, _ints(numbers))
        for card in range(state.cards[node]):
            at = node * state.width + card
            columns = (
                state.share_free_ppm, state.card_memory_free_bytes, state.mode, state.model,
                state.share_total_ppm, state.card_memory_total_bytes,
            )  # fmt: skip
            self._kernel.gy_card(self._fleet, node, card, _ints([column[at] for column in columns]))

    def _fill_costs(self, state: State) -> None:
        costs = [*state.costs_by_number(), *[ModelCosts()] * (MOST_MODELS - len(state.models))]
        self._kernel.gy_costs(self._fleet, *(_ints(column) for column in zip(*costs, strict=True)))
        tables: dict[Distances, int] = {}
        for node, distances in state.links.items():
            table = tables.get(distances)
            if table is None:
                padded = [[*row, *[0] * (state.width - len(row))] for row in distances]
                padded += [[0] * state.width] * (state.width - len(distances))
                flat = _ints([each for row in padded for each in row])
                table = tables[distances] = self._kernel.gy_links(self._fleet, flat)
            self._kernel.gy_linked(self._fleet, node, table)

    def class_of(self, want: Want) -> int:
        found = self._classes.get(want)
        if found is None:
            found = self._classes[want] = self._kernel.gy_class(self._fleet, _ints(want))
            self._wants.append(want)
        return found

    def set_mix(self, mix: Sequence[Typical], cpu_per_card_milli: int) -> None:
        if len(mix) > MOST_TYPICAL:
            raise ValueError(f"more than {MOST_TYPICAL} typical requests")
        flat = array("q")
        for want, weight in mix:
            flat.extend(want)
            flat.append(weight)
        self._kernel.gy_mix(self._fleet, len(mix), _ints(flat), cpu_per_card_milli)
        if self.policy.name == "fgd":
            self._kernel.gy_fgd_steps(self._fleet, _ints(fgd_steps(sum(weight for _, weight in mix))))

    def set_tiers(self, tiers_ppm: Sequence[int]) -> None:
        padded = [*tiers_ppm, *([0] * (MOST_MODELS - len(tiers_ppm)))]
        self._kernel.gy_tiers(self._fleet, _ints(padded))

    def reweigh(self, policy: Policy) -> None:
        if policy != self.policy:
            self.policy = policy
            self._kernel.gy_weights(self._fleet, _ints(policy.weights))

    def set_open(self, node: int, takes: bool) -> None:
        self._kernel.gy_open(self._fleet, node, int(takes))

    def choose(self, class_: int) -> Where | None:
        return self._where(class_, self._kernel.gy_choose(self._fleet, class_, self._cards, None))

    def place(self, class_: int) -> Where | None:
        return self._where(class_, self._kernel.gy_place(self._fleet, class_, self._cards))

    def _where(self, class_: int, node: int) -> Where | None:
        return Where(node, tuple(self._cards[: self._wants[class_].slices])) if node >= 0 else None

    def take(self, class_: int, where: Where) -> bool:
        return bool(self._kernel.gy_take(self._fleet, class_, where.node, self._named(where.cards)))

    def give(self, class_: int, where: Where) -> None:
        self._kernel.gy_give(self._fleet, class_, where.node, self._named(where.cards))

    def _named(self, cards: tuple[int, ...]) -> ctypes.Array[c_int32]:
        self._cards[: len(cards)] = cards
        return self._cards

    def look(self, class_: int, node: int) -> Choice | None:
        cost = self._kernel.gy_cost_at(self._fleet, class_, node, self._cards, self._terms)
        if cost == NEVER:
            return None
        terms: dict[str, int] = {}
        if self.policy.name == "gpuyard":
            terms.update(zip(TERMS, self._terms, strict=True))
        return Choice(Where(node, tuple(self._cards[: self._wants[class_].slices])), terms)

    def free(self, node: int) -> NodeFree:
        numbers = (c_int64 * (2 + 3 * MOST_CARDS))()
        self._kernel.gy_read(self._fleet, node, numbers)
        cards = tuple(
            (numbers[2 + 3 * card], numbers[3 + 3 * card], numbers[4 + 3 * card])
            for card in range(self._card_counts[node])
        )
        return NodeFree(numbers[0], numbers[1], cards)

    def close(self) -> None:
        if self._fleet:
            self._kernel.gy_free(self._fleet)
            self._fleet = None

    def __del__(self) -> None:
        self.close()
