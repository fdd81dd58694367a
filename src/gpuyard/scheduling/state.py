"""The fleet as columns of integers: what every engine of the scheduler is built from."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple, cast

from gpuyard.model.units import SHARE_WHOLE_PPM

ANY_MODEL: Final = (1 << 62) - 1
MOST_CARDS: Final = 32  # per node
MOST_MODELS: Final = 62

# Modes of a card that slices on it share. A card with something on it takes only its own mode, or nothing more where
# that is exclusive; an empty one takes any.
MODES: Final = {"shared": 1, "mps": 2, "time_slice": 3, "exclusive": 4, "mig": 5}
EXCLUSIVE: Final = MODES["exclusive"]

# By card of a node and by card: how far they are from each other, in ppm of the usual farthest pair.
Distances = tuple[tuple[int, ...], ...]


class ModelCosts(NamedTuple):
    """What a card of a model costs, in ppm of the largest in the fleet: power at work beyond idling, power idle, price.
    0 where it is not known."""

    working_ppm: int = 0
    idling_ppm: int = 0
    price_ppm: int = 0


class Want(NamedTuple):
    """What is asked for: `slices` slices on different cards of one node, and CPU and memory of that node.

    `share_ppm` and `card_memory_bytes` are per slice; `models` is a set of model numbers as bits (`ANY_MODEL`).
    """

    cpu_milli: int
    memory_bytes: int
    slices: int
    share_ppm: int
    card_memory_bytes: int
    models: int = ANY_MODEL
    mode: int = 1

    @property
    def share_sum_ppm(self) -> int:
        """Share of all its slices together."""
        return self.slices * self.share_ppm


class Where(NamedTuple):
    """A node by its number and cards by theirs."""

    node: int
    cards: tuple[int, ...]


def _column() -> array[int]:
    return array("q")


@dataclass(slots=True)
class State:
    """Struct of arrays. Columns of cards have `width` entries per node; a node with fewer cards has total 0 there.

    The order of nodes is part of the state: of equals, the first is taken.
    """

    width: int
    names: list[str] = field(default_factory=list[str])
    models: list[str] = field(default_factory=list[str])
    cpu_free_milli: array[int] = field(default_factory=_column)
    cpu_total_milli: array[int] = field(default_factory=_column)
    memory_free_bytes: array[int] = field(default_factory=_column)
    open: array[int] = field(default_factory=_column)
    cards: array[int] = field(default_factory=_column)
    share_free_ppm: array[int] = field(default_factory=_column)
    share_total_ppm: array[int] = field(default_factory=_column)
    card_memory_free_bytes: array[int] = field(default_factory=_column)
    card_memory_total_bytes: array[int] = field(default_factory=_column)
    mode: array[int] = field(default_factory=_column)
    model: array[int] = field(default_factory=_column)
    links: dict[int, Distances] = field(default_factory=dict[int, Distances])  # of nodes where they are known
    costs: dict[str, ModelCosts] = field(default_factory=dict[str, ModelCosts])

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.names)

    def model_number(self, name: str) -> int:
        """The number of a card model, a new one where it was not known. Raises ValueError for a 63rd model."""
        if name not in self.models:
            if len(self.models) == MOST_MODELS:
                raise ValueError(f"more than {MOST_MODELS} card models in one fleet")
            self.models.append(name)
        return self.models.index(name)

    def model_set(self, names: Sequence[str]) -> int:
        """The set of these models as bits; models that no card here has are left out."""
        return sum(1 << self.models.index(name) for name in set(names) if name in self.models)

    def add_node(
        self, name: str, cpu_milli: int, memory_bytes: int, *, cpu_total_milli: int | None = None, takes: bool = True
    ) -> int:
        """Adds a node without cards; its number. `cpu_milli` and `memory_bytes` are what is free."""
        self.names.append(name)
        self.cpu_free_milli.append(cpu_milli)
        self.cpu_total_milli.append(cpu_milli if cpu_total_milli is None else cpu_total_milli)
        self.memory_free_bytes.append(memory_bytes)
        self.open.append(int(takes))
        self.cards.append(0)
        blank = array("q", [0] * self.width)
        for column in (self.share_free_ppm, self.share_total_ppm, self.card_memory_free_bytes, self.mode, self.model):
            column.extend(blank)
        self.card_memory_total_bytes.extend(blank)
        return self.nodes - 1

    def add_card(
        self,
        node: int,
        model: str,
        card_memory_bytes: int = 0,
        *,
        share_free_ppm: int = SHARE_WHOLE_PPM,
        card_memory_free_bytes: int | None = None,
        mode: int = 0,
    ) -> int:
        """Adds a card to a node; its number there. Raises ValueError for one card more than `width`."""
        card = self.cards[node]
        if card == self.width:
            raise ValueError(f"node {self.names[node]} has more than {self.width} cards")
        at = node * self.width + card
        free = card_memory_bytes if card_memory_free_bytes is None else card_memory_free_bytes
        # What is free lies between nothing and the card: engines look it up in tables of that size.
        self.share_free_ppm[at] = min(max(0, share_free_ppm), SHARE_WHOLE_PPM)
        self.card_memory_free_bytes[at] = min(max(0, free), card_memory_bytes)
        self.share_total_ppm[at], self.card_memory_total_bytes[at] = SHARE_WHOLE_PPM, card_memory_bytes
        self.mode[at], self.model[at] = mode, self.model_number(model)
        self.cards[node] += 1
        return card

    def put_node(self, node: int, one: State) -> None:
        """Takes a node over from a state of that node alone, which has the same cards."""
        numbers = [self.model_number(name) for name in one.models]
        for name in (column.name for column in fields(self)):
            mine: object = getattr(self, name)
            if isinstance(mine, array):
                column, new = cast("array[int]", mine), cast("array[int]", getattr(one, name))
                if name == "model":
                    new = array("q", [numbers[model] if numbers else 0 for model in new])
                wide = len(column) // self.nodes
                column[node * wide : node * wide + len(new)] = new

    def costs_by_number(self) -> list[ModelCosts]:
        """What each model costs, by its number."""
        return [self.costs.get(name, ModelCosts()) for name in self.models]

    @property
    def share_total(self) -> int:
        """Share of all cards together, in ppm."""
        return sum(self.share_total_ppm)
