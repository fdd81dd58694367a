"""What decides where one request goes. Two engines give the same answers: C (`compiled`) and numpy (`vectorised`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from gpuyard.scheduling.policies import Policy
from gpuyard.scheduling.state import State, Want, Where

NEVER: Final = (1 << 63) - 1


class Typical(NamedTuple):
    """A request that is expected to come, and how often relative to the others."""

    want: Want
    weight: int


class Choice(NamedTuple):
    """A decision with its terms (see `policies.TERMS`), each before its weight; empty for the policies of others."""

    where: Where
    terms: Mapping[str, int]


class Engine(Protocol):
    """A fleet that changes as leases come and go. Requests of one kind share a class; classes are numbered."""

    policy: Policy

    def class_of(self, want: Want) -> int:
        """The class of a request."""
        ...

    def set_mix(self, mix: Sequence[Typical], cpu_per_card_milli: int) -> None:
        """What is expected to come. Costs are worked out anew."""
        ...

    def set_tiers(self, tiers_ppm: Sequence[int]) -> None:
        """By model number: how much dearer it is than the cheapest, in ppm."""
        ...

    def reweigh(self, policy: Policy) -> None:
        """Weighs as this policy does from now on, which has the same name."""
        ...

    def set_open(self, node: int, takes: bool) -> None:
        """Whether a node takes new leases."""
        ...

    def renew_node(self, node: int, state: State) -> None:
        """Takes a node over as these columns have it now: the same cards, in whatever use."""
        ...

    def choose(self, class_: int) -> Where | None:
        """The cheapest place, or None where the request fits no node now. Nothing is taken."""
        ...

    def place(self, class_: int) -> Where | None:
        """Chooses and takes."""
        ...

    def take(self, class_: int, where: Where) -> bool:
        """Takes what is named; False where it does not fit, and then nothing is changed."""
        ...

    def give(self, class_: int, where: Where) -> None:
        """Gives back what was taken."""
        ...

    def look(self, class_: int, node: int) -> Choice | None:
        """The cards of one node that would be taken and the terms, or None where the request does not fit it."""
        ...

    def free(self, node: int) -> NodeFree:
        """What is free on a node."""
        ...

    def close(self) -> None:
        """Frees what it holds; it is not used afterwards."""
        ...


class NodeFree(NamedTuple):
    """What is free on a node: CPU, memory, and by card the share, the memory and the mode."""

    cpu_milli: int
    memory_bytes: int
    cards: tuple[tuple[int, int, int], ...]


class EngineMaker(Protocol):
    """Makes an engine from a state. The state itself is not changed by it."""

    def __call__(self, state: State, policy: Policy, seed: int) -> Engine: ...
