"""Small random fleets and requests for tests of the scheduler, and both of its engines."""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st

from gpuyard.scheduling.compiled import CompiledEngine
from gpuyard.scheduling.engine import EngineMaker
from gpuyard.scheduling.state import ANY_MODEL, Distances, ModelCosts, State, Want
from gpuyard.scheduling.vectorised import VectorisedEngine
from gpuyard.slicing.kernel import kernel

MODELS = ("RTX4090", "H100")
MEMORY = {"RTX4090": 24, "H100": 80}


def compiled() -> EngineMaker:
    """The engine in C."""
    return partial(CompiledEngine, kernel())


def engines() -> list[EngineMaker]:
    """Both engines."""
    return [compiled(), VectorisedEngine]


@st.composite
def fleets(draw: st.DrawFn, most_nodes: int = 6, most_cards: int = 4) -> State:
    """A fleet of a few nodes with cards of two models, all empty."""
    state = State(most_cards)
    for model in MODELS:
        state.model_number(model)
    for at in range(draw(st.integers(1, most_nodes))):
        node = state.add_node(f"n{at}", draw(st.sampled_from([4000, 16000, 64000])), draw(st.sampled_from([64, 512])))
        model = draw(st.sampled_from(MODELS))
        for _ in range(draw(st.integers(0, most_cards))):
            state.add_card(node, model, MEMORY[model])
        if draw(st.booleans()):
            state.links[node] = draw(distances(state.cards[node]))
    state.costs = {
        model: draw(st.builds(ModelCosts, *[st.sampled_from([0, 90_000, 777_777, 1_000_000])] * 3)) for model in MODELS
    }
    return state


@st.composite
def distances(draw: st.DrawFn, cards: int) -> Distances:
    """How far the cards of a node are from each other, of a few classes; the same both ways."""
    steps = st.sampled_from([136_666, 333_333, 666_666, 1_000_000])
    table = [[0] * cards for _ in range(cards)]
    for a in range(cards):
        for b in range(a):
            table[a][b] = table[b][a] = draw(steps)
    return tuple(map(tuple, table))


def wants() -> st.SearchStrategy[Want]:
    """Fractions by either dimension, whole cards, several of them, CPU alone; with models and modes."""
    return st.builds(
        Want,
        cpu_milli=st.sampled_from([0, 1000, 3152, 12000]),
        memory_bytes=st.sampled_from([0, 8, 60]),
        slices=st.sampled_from([0, 1, 1, 1, 1, 2, 4]),
        share_ppm=st.sampled_from([100_000, 333_333, 470_000, 500_000, 1_000_000]),
        card_memory_bytes=st.sampled_from([0, 6, 12, 24, 40]),
        models=st.sampled_from([ANY_MODEL, ANY_MODEL, 1, 2]),
        mode=st.sampled_from([1, 1, 1, 2, 3, 4]),
    )
