"""How well and how fast requests are placed, beside the reference policy on the same arrivals.

`python -m bench scheduling` takes a few seeds (below four minutes on a quiet core); with GPUYARD_BENCH_FULL=1 it takes ten
seeds, every policy and three runs of churn (about half an hour). The traces lie in `shared/data/traces` beside the checkout.
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from bench.figures import Figure, at_least, at_most, percentile
from bench.packing_bound import keep_bound, kind_of
from bench.pooled_bound import pooled_bound
from gpuyard.placing import find_engine
from gpuyard.scheduling.engine import Engine, Typical
from gpuyard.scheduling.mix import LearntMix
from gpuyard.scheduling.policies import NAMES, Policy, fgd_typical
from gpuyard.scheduling.state import State, Want
from gpuyard.scheduling.together import place_together
from gpuyard.simulation.arrivals import Churn, churn, fill
from gpuyard.simulation.session import Options, simulate, state_for, wants_for
from gpuyard.simulation.traces import TraceNode, TracePod, read_nodes, read_pods

TRACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "traces" / "openb"
NODES = TRACES / "openb_node_list_gpu_node.csv"
FULL = os.environ.get("GPUYARD_BENCH_FULL") == "1"
SEEDS = range(42, 52) if FULL else range(42, 45)
CHURN_SEEDS = range(1, 4) if FULL else range(1, 2)
OF_SEEDS = f"mean of {len(SEEDS)} seeds"


def measure() -> Iterator[Figure]:
    if not TRACES.exists():
        raise SystemExit(f"the traces are not at {TRACES}")
    yield from _reference()
    yield from _fill()
    yield from _gaps()
    yield from _churn()
    yield from _speed()
    yield _burst()


def _pods(variant: str) -> Path:
    return TRACES / f"openb_pod_list_{variant}.csv"


@cache
def _run(policy: str, variant: str, seed: int, load: float | None = None) -> dict[str, Any]:
    churn = None if load is None else Churn(load, 50_000)
    options = Options(NODES, _pods(variant), policy, seed, 1.3 if load is None else None, churn)
    return simulate(options, find_engine()).summary


def _mean(policy: str, variant: str, key: str, seeds: range = SEEDS) -> float:
    return mean(_run(policy, variant, seed)[key] for seed in seeds)


def _reference() -> Iterator[Figure]:
    """The reference must be the published one, or no comparison with it counts."""
    log = list(csv.DictReader((TRACES / "golden_fgd_default_seed42_placements.csv").open()))
    nodes = read_nodes(NODES)
    pods = {pod.name: pod for pod in read_pods(_pods("default"), nodes)}
    rank = {row["node"].split("-", 1)[1]: int(row["node"].split("-", 1)[0]) for row in log if row["node"]}
    ordered = sorted(nodes, key=lambda node: rank.get(node.name, len(nodes)))
    policy = Policy("fgd")
    state = State(8)
    for node in ordered:
        number = state.add_node(node.name, node.cpu_milli, node.memory_bytes)
        for _ in range(node.cards):
            state.add_card(number, node.model)
    engine = find_engine()(state, policy, 42)
    wants = dict(zip(pods, wants_for(list(pods.values()), state), strict=True))
    engine.set_mix([Typical(*each) for each in fgd_typical(wants.values())], 1)
    same = 0
    for row in log:
        where = engine.place(engine.class_of(wants[row["pod"].split("-tuned")[0]]))
        same += (state.names[where.node] if where else "") == row["node"].partition("-")[2]
    yield at_least(
        "scheduling.fgd_same_as_published",
        same,
        "of 10866",
        10_850,
        "the authors' own simulator",
        "node for node on its log of 10,866 arrivals",
    )
    published: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader((TRACES / "expected_fgd_paper_curves.csv").open()):
        published.setdefault((row["workload"], row["sc_policy"]), []).append(float(row["alloc_pct_at_130"]))
    errors = [
        abs(_mean("fgd", variant, "allocation_percent") - mean(published[f"openb_pod_list_{variant}", "06-FGD"]))
        for variant in ("default", "cpu050", "gpushare40", "multigpu20")
    ]
    yield at_most(
        "scheduling.fgd_off_curves",
        max(errors),
        "points",
        0.2,
        "published curves, 10 seeds",
        f"largest of 4 variants, {OF_SEEDS}",
    )


def _fill() -> Iterator[Figure]:
    others = [name for name in NAMES if name != "gpuyard"] if FULL else ["fgd", "bestfit", "binpack-spread"]
    told = ", ".join(f"{name} {_mean(name, 'default', 'allocation_percent'):.2f}" for name in others)
    how = f"openb default at 130 %, {OF_SEEDS}"
    yield at_least(
        "scheduling.fill_allocation", _mean("gpuyard", "default", "allocation_percent"), "%", 96.0, told, how
    )
    for name, key, slack in (
        ("scheduling.fill_several_failed", "blocked_several_percent", 0.5),
        ("scheduling.fill_first_failure", "first_refusal_at_percent", -1.0),
    ):
        own, fgd = _mean("gpuyard", "default", key), _mean("fgd", "default", key)
        make = at_most if slack > 0 else at_least
        yield make(name, own, "%", round(fgd + slack, 3), f"fgd {fgd:.2f}", how)


def _gaps() -> Iterator[Figure]:
    """How much of what FGD leaves below the bound is closed, by variant."""
    variants = sorted(path.stem.removeprefix("openb_pod_list_") for path in TRACES.glob("openb_pod_list_*.csv"))
    seeds = SEEDS if FULL else range(42, 43)
    closed: dict[str, float] = {}
    worst = math.inf
    for variant in variants:
        own, fgd = (_mean(policy, variant, "allocation_percent", seeds) for policy in ("gpuyard", "fgd"))
        bound = _bound(variant)
        at_42 = _run("fgd", variant, 42)["allocation_percent"]
        closed[variant] = 100 * (own - fgd) / (bound - at_42)
        worst = min(worst, own - fgd)
    each = " ".join(f"{variant}={value:.0f}%" for variant, value in closed.items())
    yield at_least(
        "scheduling.gap_closed_mean",
        mean(closed.values()),
        "%",
        45,
        "fgd 0",
        f"to the keep bound, {len(seeds)} seed(s): {each}",
    )
    yield at_least(
        "scheduling.gap_worst_variant",
        worst,
        "points",
        -0.05,
        "fgd 0",
        f"least lead over fgd of {len(variants)} variants",
    )


def _bound(variant: str) -> float:
    nodes = read_nodes(NODES)
    pods = read_pods(_pods(variant), nodes)
    by_name = {pod.name: pod for pod in pods}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log.csv")
        simulate(Options(NODES, _pods(variant), "fgd", 42, 1.3, log=log), find_engine())
        came: Counter[Any] = Counter()
        kept: Counter[Any] = Counter()
        for row in csv.DictReader(log.open()):
            kind = kind_of(by_name[row["pod"]])
            came[kind] += 1
            kept[kind] += bool(row["node"])
    return keep_bound(nodes, kept, came)


def _churn() -> Iterator[Figure]:
    def of(policy: str, load: float, key: str) -> float:
        def value(summary: dict[str, Any]) -> float:
            return float(summary["blocked_percent"].get("8", 0.0) if key == "8" else summary[key])

        return mean(value(_run(policy, "default", seed, load)) for seed in CHURN_SEEDS)

    how = f"50,000 arrivals, the first of them there at the start, stays of 24 h, rate +-30 % over a day, mean of {len(CHURN_SEEDS)} seed(s)"
    for load, goal, most_moves in ((0.9, 3.0, 1.0), (1.0, 20.0, 2.0)):
        percent = f"{load * 100:.0f}"
        fgd = f"fgd {of('fgd', load, '8'):.1f} % without moves"
        yield at_most(f"scheduling.churn{percent}_8cards_blocked", of("gpuyard", load, "8"), "%", goal, fgd, how)
        moves = of("gpuyard", load, "moves_per_100_arrivals")
        yield at_most(f"scheduling.churn{percent}_moves", moves, "per 100", most_moves, "fgd 0", how)
    yield at_least(
        "scheduling.churn100_allocation", of("gpuyard", 1.0, "allocation_percent"), "%", 92.2,
        f"fgd {of('fgd', 1.0, 'allocation_percent'):.2f}; one pool without borders {_pooled(1.0):.2f}",
        how,
    )  # fmt: skip
    yield at_most(
        "scheduling.churn80_several_blocked",
        of("gpuyard", 0.8, "blocked_several_percent"),
        "%",
        0,
        f"fgd {of('fgd', 0.8, 'blocked_several_percent'):.1f} %",
        how,
    )
    fgd_empty = of("fgd", 0.5, "empty_nodes")
    yield at_least(
        "scheduling.load50_empty_nodes",
        of("gpuyard", 0.5, "empty_nodes_mean"),
        "nodes",
        700,
        f"fgd {fgd_empty:.0f} of 1,213 at the end",
        f"mean over the hours, consolidated hourly; {how}",
    )


def _pooled(load: float) -> float:
    """What no scheduler exceeds on these arrivals."""
    nodes = read_nodes(NODES)
    pods = read_pods(_pods("default"), nodes)
    capacity_ppm = sum(node.cards for node in nodes) * 1_000_000
    return mean(
        pooled_bound(nodes, pods, list(churn(pods, Churn(load, 50_000), capacity_ppm, seed))) for seed in CHURN_SEEDS
    )


def _large(cards: int) -> tuple[list[TraceNode], list[TracePod]]:
    """The fleet of the trace again and again until it has so many cards."""
    own, made = read_nodes(NODES), list[TraceNode]()
    have = 0
    while have < cards:
        node = own[len(made) % len(own)]
        made.append(TraceNode(f"{node.name}-{len(made)}", node.cpu_milli, node.memory_bytes, node.cards, node.model))
        have += node.cards
    return made, read_pods(_pods("default"), own)


def _decisions(engine_name: str, cards: int, most: int) -> tuple[float, float]:
    """Placements per second, and the 99th percentile of one decision in milliseconds; learning included."""
    nodes, pods = _large(cards)
    policy = Policy("gpuyard")
    state = state_for(nodes, policy, 0)
    wants = wants_for(pods, state)
    engine: Engine = find_engine(engine_name)(state, policy, 0)
    mix = LearntMix(state.nodes)
    took: list[float] = []
    coming = [wants[arrival.pod] for arrival in fill(pods, 1.3, state.share_total, 1)][:most]
    begun = time.process_time()
    for want in coming:
        start = time.process_time()
        mix.see(want, engine)
        engine.place(engine.class_of(want))
        took.append(time.process_time() - start)
    return len(coming) / (time.process_time() - begun), 1000 * percentile(took, 0.99)


def _speed() -> Iterator[Figure]:
    how = "CPU time of one core, decisions only (no API, no store), mix learnt meanwhile"
    numpy, _ = _decisions("numpy", 10_000, 20_000)
    yield at_least("scheduling.numpy_10k_cards", numpy, "per s", 3000, "FGD's simulator 3-12", how)
    compiled, _ = _decisions("compiled", 10_000, 20_000)
    yield at_least("scheduling.compiled_10k_cards", compiled, "per s", 50_000, f"numpy {numpy:.0f}", how)
    large, p99_ms = _decisions("compiled", 100_000, 200_000 if FULL else 60_000)
    yield at_least("scheduling.compiled_100k_cards", large, "per s", 10_000, "kube-scheduler ~600 on 5k nodes", how)
    yield at_most("scheduling.compiled_100k_p99", p99_ms, "ms", 5, "-", how)


def _burst() -> Figure:
    """Ten thousand pods at once, in gangs of 500 that go together or not at all, on ten thousand cards."""
    nodes, pods = _large(10_000)
    policy = Policy("gpuyard")
    state = state_for(nodes, policy, 0)
    wants: list[Want] = wants_for(pods, state)
    engine = find_engine()(state, policy, 0)
    mix = LearntMix(state.nodes)
    begun = time.process_time()
    used = [0] * state.nodes
    whole = 0
    for gang in range(20):
        asked = [wants[(gang * 500 + at) % len(wants)] for at in range(500)]
        for want in asked:
            mix.see(want, engine)
        placed = place_together(engine, [engine.class_of(want) for want in asked])
        whole += placed is not None
        for want, where in zip(asked, placed or (), strict=False):
            used[where.node] += want.share_sum_ppm
    seconds = time.process_time() - begun
    if any(share > 1_000_000 * state.cards[node] for node, share in enumerate(used)):
        raise SystemExit("the burst oversold a node")
    return at_most(
        "scheduling.burst_10k_pods",
        seconds,
        "s",
        5,
        "HAMi: 40 pods in 15-30 min",
        f"CPU time of one core; 20 gangs of 500 on 10,000 cards, {whole} whole, none oversold",
    )
