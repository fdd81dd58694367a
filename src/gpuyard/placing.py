"""Picks what decides placements here: the kernel in C, else numpy, else best fit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from gpuyard.scheduling.engine import EngineMaker
    from gpuyard.scheduling.plan import Scheduler


def find_engine(name: str = "auto") -> EngineMaker:
    """`compiled`, `numpy`, or for `auto` the first of them that can be had here. Raises YardError."""
    from gpuyard.scheduling.compiled import CompiledEngine
    from gpuyard.slicing.kernel import kernel

    if name not in ("auto", "compiled", "numpy"):
        raise YardError("invalid_request", reason=f"--engine {name}: auto, compiled, numpy")
    if name != "numpy":
        try:
            return partial(CompiledEngine, kernel())
        except YardError:
            if name == "compiled":
                raise
    try:
        from gpuyard.scheduling.vectorised import VectorisedEngine
    except ImportError as error:
        raise YardError("extra_missing", extra="numpy", command="pip install 'gpuyard[numpy]'") from error
    return VectorisedEngine


def find_scheduler() -> Scheduler:
    """What a yard plans with. Where neither engine can be had, every request is still placed, by best fit. Gangs and
    near cards come on top of either."""
    from gpuyard.scheduling.best_fit import BestFit
    from gpuyard.scheduling.fragmentation_aware import FragmentationAware
    from gpuyard.scheduling.gangs import Gangs

    try:
        return Gangs(FragmentationAware(find_engine()))
    except YardError:
        return Gangs(BestFit())


def engine_here() -> EngineMaker | None:
    """What moves of running leases are tried on; None where no engine can be had here, and then nothing is moved."""
    try:
        return find_engine()
    except YardError:
        return None
