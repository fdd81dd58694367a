"""Composes a simulation: reads what was typed, picks the engine, writes the report."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from gpuyard.cli.host import SimulateOptions
from gpuyard.model.errors import YardError
from gpuyard.model.units import parse_duration
from gpuyard.placing import find_engine, parse_weights

if TYPE_CHECKING:
    from gpuyard.simulation.arrivals import Churn

_MOST_ARRIVALS = 10_000_000


def simulate(typed: SimulateOptions, progress: Callable[[int, int | None], None]) -> dict[str, Any]:
    """Runs it and writes the report that was asked for. Raises YardError for whatever cannot be."""
    from gpuyard.simulation import report, session
    from gpuyard.texts import language_of_environment, text

    if typed.fill is not None and typed.churn is not None:
        raise YardError("invalid_request", reason="--fill, --churn")
    _within("--fill", typed.fill, 0.01, 100)
    _within("--churn", typed.churn, 0.01, 10)
    _within("--faults", typed.faults_per_day, 0, 1000)
    options = session.Options(
        nodes=typed.nodes, pods=typed.pods, policy=typed.policy, seed=typed.seed, fill_ratio=typed.fill,
        churn=None if typed.churn is None else _churn(typed, typed.churn), waits=typed.waits, moves=typed.moves,
        consolidates=typed.consolidates, faults_per_day=typed.faults_per_day, log=typed.log, report=typed.report,
        prices=_prices(typed.prices), idle_watts=typed.idle_watts, weights=parse_weights(typed.weights),
    )  # fmt: skip
    outcome = session.simulate(options, find_engine(typed.engine), progress)
    if typed.report is not None:
        language = language_of_environment()
        report.write(typed.report, options, outcome, lambda key: text(f"cli.simulate.{key}", language))
    return outcome.summary


def _within(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise YardError("invalid_request", reason=f"{name} {value}: {least} - {most}")


def _churn(typed: SimulateOptions, load: float) -> Churn:
    from gpuyard.simulation.arrivals import Churn

    _within("--arrivals", typed.arrivals, 1, _MOST_ARRIVALS)
    _within("--wave", typed.wave, 0, 1)
    _within("--crowd", typed.crowd, 1, 1000)
    lifetime_us = parse_duration(typed.lifetime)
    if lifetime_us < 1:
        raise YardError("invalid_duration", value=typed.lifetime)
    return Churn(load, typed.arrivals, typed.wave, lifetime_us, typed.crowd)


def _prices(typed: tuple[str, ...]) -> dict[str, Decimal]:
    """`0.35` for every model, `H100=2.10` for one."""
    prices: dict[str, Decimal] = {}
    for each in typed:
        model, _, price = each.rpartition("=")
        try:
            value = Decimal(price)
        except InvalidOperation:
            raise YardError("invalid_price", value=each) from None
        if not value.is_finite() or not 0 <= value <= 1_000_000:
            raise YardError("invalid_price", value=each)
        prices[model or "*"] = value
    return prices
