"""Picks what decides placements here: the kernel in C, else numpy, else best fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from gpuyard.scheduling.engine import EngineMaker
    from gpuyard.scheduling.plan import Scheduler
    from gpuyard.scheduling.policies import Policy


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


def policy_of(weights: Mapping[str, int]) -> Policy:
    """The policy `gpuyard` with these weights instead of its own. Raises YardError."""
    from gpuyard.scheduling.policies import MOST_WEIGHT, WEIGHTS, Policy

    for term, weight in weights.items():
        if term not in WEIGHTS or not 0 <= weight <= MOST_WEIGHT:
            known = ", ".join(WEIGHTS)
            raise YardError("invalid_weight", value=f"{term}={weight}", known=known, most=MOST_WEIGHT)
    return Policy.weighing(weights)


def parse_weights(typed: Sequence[str]) -> dict[str, int]:
    """Terms and weights from `watts=4`. Raises YardError."""
    from gpuyard.scheduling.policies import MOST_WEIGHT, WEIGHTS

    weights: dict[str, int] = {}
    for each in typed:
        term, _, weight = each.partition("=")
        if term not in WEIGHTS or not (weight.isascii() and weight.isdigit() and len(weight) < 10):
            raise YardError("invalid_weight", value=each[:40], known=", ".join(WEIGHTS), most=MOST_WEIGHT)
        weights[term] = int(weight)
    policy_of(weights)
    return weights


def find_scheduler(
    weights: Mapping[str, int] | None = None, sharing_window: tuple[int, int] | None = None
) -> Scheduler:
    """What a yard plans with. Where neither engine can be had, every request is still placed, by best fit. Gangs and
    near cards come on top of either, and on top of that whole cards outside of the operator's window of sharing."""
    from gpuyard.scheduling.sharing import WholeAtPeak
    from gpuyard.scheduling.windows import Window

    found = _find_scheduler(policy_of(weights or {}).where_stay(0))  # a yard's leases end
    return found if sharing_window is None else WholeAtPeak(found, Window(*sharing_window))


def _find_scheduler(policy: Policy) -> Scheduler:
    from gpuyard.scheduling.best_fit import BestFit
    from gpuyard.scheduling.fragmentation_aware import FragmentationAware
    from gpuyard.scheduling.gangs import Gangs
    from gpuyard.scheduling.mig_slices import MigSlices

    try:
        return Gangs(MigSlices(FragmentationAware(find_engine(), policy=policy)))
    except YardError:
        return Gangs(MigSlices(BestFit()))


def engine_here() -> EngineMaker | None:
    """What moves of running leases are tried on; None where no engine can be had here, and then nothing is moved."""
    try:
        return find_engine()
    except YardError:
        return None
