"""One simulation from its options to its summary, its log and its report."""

from __future__ import annotations

import csv
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.scheduling.engine import EngineMaker, Typical
from gpuyard.scheduling.policies import NAMES, Policy, fgd_typical
from gpuyard.scheduling.state import ANY_MODEL, State, Want
from gpuyard.simulation import arrivals as laws
from gpuyard.simulation.arrivals import Arrival, Churn
from gpuyard.simulation.running import Counts, Entry, Rules, Run, Sample
from gpuyard.simulation.traces import TraceNode, TracePod, read_nodes, read_pods

LOG_COLUMNS: Final = ("seq", "pod", "node", "cards", "shares", "time", "reason")
WARM_UP_PERCENT: Final = 30
_SAMPLES: Final = 200
_PPM_US_PER_CARD_HOUR: Final = 1_000_000 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What is simulated. Without `fill_ratio` and `churn` the pods come when the trace says."""

    nodes: Path
    pods: Path
    policy: str = "gpuyard"
    seed: int = 0
    fill_ratio: float | None = None
    churn: Churn | None = None
    waits: bool = False
    moves: bool = True
    consolidates: bool = True
    faults_per_day: float = 0.0
    log: Path | None = None
    report: Path | None = None
    prices: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])  # per card and hour, "*" for any other
    idle_watts: int = 0  # of a card that does nothing
    weights: Mapping[str, int] = field(default_factory=dict[str, int])  # instead of the usual ones


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's summary, as JSON has it, and its samples."""

    summary: dict[str, Any]
    samples: Sequence[Sample]
    capacity_ppm: int


def state_for(nodes: Sequence[TraceNode], policy: Policy, seed: int) -> State:
    """The empty fleet in the order in which the policy takes its nodes."""
    order = list(nodes)
    if policy.shuffles:
        random.Random(seed * 7 + 1).shuffle(order)  # noqa: S311 - a simulation, which must be repeatable
    else:
        order.sort(key=lambda node: hashlib.sha256(node.name.encode()).digest())
    state = State(max(1, *(node.cards for node in nodes)) if len(nodes) > 1 else max(1, nodes[0].cards))
    for node in order:
        number = state.add_node(node.name, node.cpu_milli, node.memory_bytes)
        for _ in range(node.cards):
            state.add_card(number, node.model, node.card_memory_bytes)
    return state


def wants_for(pods: Sequence[TracePod], state: State) -> list[Want]:
    """What each pod asks for."""
    return [
        Want(
            pod.cpu_milli, pod.memory_bytes, pod.cards, pod.share_ppm, pod.card_memory_bytes,
            state.model_set(pod.models) if pod.models else ANY_MODEL,
        )
        for pod in pods
    ]  # fmt: skip


def simulate(
    options: Options, make_engine: EngineMaker, progress: Callable[[int, int | None], None] | None = None
) -> Outcome:
    """Runs it. Raises YardError for bad input. `progress` is called with arrivals done and, where known, in all."""
    if options.policy not in NAMES:
        raise YardError("unknown_policy", policy=options.policy, known=", ".join(NAMES))
    nodes = read_nodes(options.nodes)
    pods = read_pods(options.pods, nodes)
    policy = Policy.weighing(options.weights) if options.policy == "gpuyard" else Policy(options.policy)
    state = state_for(nodes, policy, options.seed)
    wants = wants_for(pods, state)
    coming, total = _arrivals(options, pods, state.share_total)
    engine = make_engine(state, policy, options.seed)
    if policy.name == "fgd":
        engine.set_mix([Typical(*each) for each in fgd_typical(wants)], 1)
    own = policy.name == "gpuyard"
    rules = Rules(
        waits=options.waits,
        moves=own and options.moves and options.fill_ratio is None,
        consolidates=own and options.consolidates and options.fill_ratio is None,
        faults_per_day=options.faults_per_day,
        sample_every=max(1, (total or len(pods)) // _SAMPLES) if options.report else 0,
        warm_up=options.churn.arrivals * WARM_UP_PERCENT // 100 if options.churn else 0,
    )
    begun = time.perf_counter()
    with _logging(options, state, pods) as log:
        run = Run(engine, state, wants, rules, options.seed, log)
        counts = run.run(coming, (lambda done: progress(done, total)) if progress else None)
    seconds = time.perf_counter() - begun
    engine.close()
    summary = summarise(options, state, run, counts)
    summary["seconds"] = round(seconds, 3)
    return Outcome(summary, run.samples, state.share_total)


def _arrivals(options: Options, pods: Sequence[TracePod], capacity_ppm: int) -> tuple[Iterator[Arrival], int | None]:
    if options.fill_ratio is not None:
        return laws.fill(pods, options.fill_ratio, capacity_ppm, options.seed), None
    if options.churn is not None:
        return laws.churn(pods, options.churn, capacity_ppm, options.seed), options.churn.arrivals
    return laws.as_timed(pods), len(pods)


@contextmanager
def _logging(options: Options, state: State, pods: Sequence[TracePod]) -> Iterator[Callable[[Entry], None] | None]:
    """Writes the log that a third party can check: every decision with its source row, node, cards and shares."""
    if options.log is None:
        yield None
        return
    try:
        with options.log.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(LOG_COLUMNS)

            def write(entry: Entry) -> None:
                pod = pods[entry.pod]
                shares = " ".join([str(pod.share_ppm // 1000)] * len(entry.cards))
                writer.writerow((
                    entry.seq, pod.name, "" if entry.node is None else state.names[entry.node],
                    " ".join(map(str, entry.cards)), shares, f"{entry.time_us / 1e6:.6f}", entry.reason,
                ))  # fmt: skip

            yield write
    except OSError as error:
        raise YardError("invalid_request", reason=f"{options.log}: {error.strerror}") from error


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 3) if whole else 0.0


def summarise(options: Options, state: State, run: Run, counts: Counts) -> dict[str, Any]:
    """The figures of a run. Shares are in percent of all cards."""
    capacity, span = state.share_total, counts.until_us - counts.since_us
    arrivals, refused = sum(counts.arrivals.values()), sum(counts.refused.values())
    several = [n for n in counts.arrivals if n > 1]
    with_cards = [n for n in counts.arrivals if n > 0]

    def blocked(sizes: Sequence[int]) -> float:
        return _percent(sum(counts.refused[n] for n in sizes), sum(counts.arrivals[n] for n in sizes))

    static = options.fill_ratio is not None
    summary: dict[str, Any] = {
        "policy": options.policy,
        "seed": options.seed,
        "nodes": state.nodes,
        "cards": sum(state.cards),
        "arrivals": arrivals,
        "placed": arrivals - refused - sum(sample.waiting for sample in run.samples[-1:]),
        "refused": refused,
        "allocation_percent": _percent(run.used_ppm, capacity)
        if static
        else _percent(counts.used_ppm_us, capacity * span),
        "asked_percent": _percent(run.asked_ppm, capacity) if static else None,
        "blocked_percent": {str(n): blocked([n]) for n in sorted(counts.arrivals)},
        "blocked_several_percent": blocked(several),
        "blocked_with_cards_percent": blocked(with_cards),
        "first_refusal_at_percent": None
        if counts.first_refused_ppm is None
        else _percent(counts.first_refused_ppm, capacity),
        "moves": counts.moves,
        "moves_per_100_arrivals": _percent(counts.moves, arrivals),
        "empty_nodes": run.holdings.empty_nodes,
        "interrupted": counts.interrupted,
    }
    if counts.empty_nodes:
        summary["empty_nodes_mean"] = round(sum(counts.empty_nodes) / len(counts.empty_nodes), 1)
    if counts.waits_us:
        ordered = sorted(counts.waits_us)
        summary["waited"] = len(ordered)
        summary["wait_seconds"] = {
            name: round(ordered[len(ordered) * percent // 100] / 1e6, 1) for name, percent in (("p50", 50), ("p95", 95))
        }
    if options.prices:
        summary["money"] = str(_money(options.prices, counts))
    if options.idle_watts and not static:
        idle_hours = Decimal(capacity * span - counts.used_ppm_us) / _PPM_US_PER_CARD_HOUR
        summary["idle_kwh"] = float(round(idle_hours * options.idle_watts / 1000, 1))
    return summary


def _money(prices: Mapping[str, Decimal], counts: Counts) -> Decimal:
    """What the cards in use would have earned."""
    earned = Decimal(0)
    for model, share_us in counts.share_us_by_model.items():
        earned += Decimal(share_us) / _PPM_US_PER_CARD_HOUR * prices.get(model, prices.get("*", Decimal(0)))
    return earned.quantize(Decimal("0.01"))
