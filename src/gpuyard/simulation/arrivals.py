"""What comes when: laws that turn a pod list into arrivals. The same seed gives the same arrivals to every policy."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gpuyard.simulation.traces import TracePod

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US


class Arrival(NamedTuple):
    """One request: the pod of the list that it is a copy of, when it comes and how long it stays (None: for good)."""

    pod: int
    at_us: int
    lasts_us: int | None


@dataclass(frozen=True, slots=True)
class Churn:
    """Requests come at random and leave again.

    `load` is what is wanted on average, as a share of the cards; the rate swings by `wave` of itself over a day and is
    multiplied by `crowd` for an hour in the middle of the run. A stay is exponential with mean `lifetime_us`. The first
    of the arrivals come at once: those that would be there by then if requests had always come like that.
    """

    load: float
    arrivals: int
    wave: float = 0.3
    lifetime_us: int = DAY_US
    crowd: float = 1.0

    @property
    def there_at_start(self) -> float:
        """How many lifetimes' arrivals there are at the start of the day's wave, which those who stay follow late."""
        turn = 2 * math.pi * self.lifetime_us / DAY_US
        return 1 - self.wave * turn / (1 + turn * turn)


def fill(pods: Sequence[TracePod], ratio: float, capacity_ppm: int, seed: int) -> Iterator[Arrival]:
    """Every pod once in random order, then random copies, until `ratio` times the cards are asked for. None leaves."""
    rng = random.Random(seed)  # noqa: S311 - a simulation, which must be repeatable
    order = list(range(len(pods)))
    rng.shuffle(order)
    wanted = at = 0
    demands = [pod.cards * pod.share_ppm for pod in pods]
    if sum(demands) == 0:
        order, at = order[:], 0
    for pod in order:
        if wanted >= ratio * capacity_ppm and sum(demands):
            return
        wanted += demands[pod]
        yield Arrival(pod, at * SECOND_US, None)
        at += 1
    while wanted < ratio * capacity_ppm and sum(demands):
        pod = rng.randrange(len(pods))
        wanted += demands[pod]
        yield Arrival(pod, at * SECOND_US, None)
        at += 1


def churn(pods: Sequence[TracePod], law: Churn, capacity_ppm: int, seed: int) -> Iterator[Arrival]:
    """Poisson arrivals of random pods of the list at an offered load."""
    rng = random.Random(seed)  # noqa: S311 - as above
    mean_ppm = sum(pod.cards * pod.share_ppm for pod in pods) / len(pods)
    rate = law.load * capacity_ppm / max(1.0, mean_ppm) / law.lifetime_us  # arrivals per microsecond
    span = law.arrivals / rate
    most = rate * (1 + law.wave) * max(1.0, law.crowd)
    now, made = 0.0, min(law.arrivals, round(rate * law.lifetime_us * law.there_at_start))
    for _ in range(made):
        yield Arrival(rng.randrange(len(pods)), 0, max(1, int(rng.expovariate(1 / law.lifetime_us))))
    while made < law.arrivals:
        now += rng.expovariate(most)
        own = rate * (1 + law.wave * math.sin(2 * math.pi * now / DAY_US))
        if law.crowd > 1 and 0 <= now - span / 2 < 3600 * SECOND_US:
            own *= law.crowd
        if rng.random() * most > own:
            continue
        yield Arrival(rng.randrange(len(pods)), int(now), max(1, int(rng.expovariate(1 / law.lifetime_us))))
        made += 1


def as_timed(pods: Sequence[TracePod]) -> Iterator[Arrival]:
    """When the trace says; a pod without times comes at its start and stays."""
    start = min((pod.created_s for pod in pods if pod.created_s is not None), default=0)
    timed = sorted((max(0, (pod.created_s or start) - start), at) for at, pod in enumerate(pods))
    for second, at in timed:
        lasts = pods[at].lasts_s
        yield Arrival(at, second * SECOND_US, None if lasts is None else max(1, lasts * SECOND_US))
