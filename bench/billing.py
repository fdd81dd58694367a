"""Money: how fast intervals are rated, invoices made and a spot market cleared, and how often the sums are wrong."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import replay
from bench.figures import Figure, at_least, at_most
from gpuyard.billing.conditions import Conditions, LeaseFacts
from gpuyard.billing.invoices import hash_of
from gpuyard.billing.issuing import Heading, invoice
from gpuyard.billing.rated import rate_all
from gpuyard.billing.rating import rate, total_nano
from gpuyard.billing.spot import Bid, Round, clear
from gpuyard.catalog.taxes import NO_TAX
from gpuyard.model.leases import Interval, Proof
from gpuyard.model.states import LeaseState

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
MONTH_START = 1_790_812_800 * SECOND  # 2026-10-01
MONTH_END = MONTH_START + 31 * DAY
LEASES = 10_000
HISTORIES = int(os.environ.get("GPUYARD_BENCH_HISTORIES", "100000"))


def measure() -> Iterator[Figure]:
    yield from _spot()
    yield from _rated()
    yield from _month()
    yield from replay.measure()
    yield from _oracle()


def _spot() -> Iterator[Figure]:
    r = random.Random(1)
    bids = tuple(
        Bid(f"bd-{n:05}", r.randrange(10**8, 10**9), r.randint(1, 4), r.randrange(10**9)) for n in range(10_000)
    )
    market = Round("rtx4090-full", 0, 4000, 1000, 10**8, 10**9, 5 * 10**8, bids)
    best = min(_timed(lambda: clear(market)) for _ in range(5))
    sort = min(_timed(lambda: sorted(bids, key=lambda bid: (-bid.price_nano, bid.since_us, bid.id))) for _ in range(5))
    yield at_most(
        "spot: 10,000 bids cleared", best * 1000, "ms", 100, f"sorting them alone {sort * 1000:.1f} ms", "best of 5"
    )


def _rated() -> Iterator[Figure]:
    told = [
        _interval(f"ls-{n:05}", 1, MONTH_START + n * SECOND, MONTH_START + n * SECOND + HOUR) for n in range(50_000)
    ]
    conditions = Conditions(facts={each.lease_id: LeaseFacts("RTX4090", 500_000) for each in told})
    full, plain = _timed(lambda: rate_all(told, conditions)), _timed(lambda: rate(told))
    how = "50,000 intervals of as many leases, all purchase options looked at"
    yield at_least(
        "intervals rated", len(told) / full, "/s", 15_000, f"on-demand alone {len(told) / plain:,.0f}/s", how
    )


def _month() -> Iterator[Figure]:
    r = random.Random(2)
    told = [each for n in range(LEASES) for each in _life(r, f"ls-{n:05}")]

    def make() -> str:
        lines = rate_all(told, Conditions(until_us=MONTH_END))
        head = Heading("INV-000001", "tn-1", "tenant", "USD", MONTH_START, MONTH_END, MONTH_END, "")
        made = invoice(head, lines, [], NO_TAX)
        assert made.subtotal_nano == total_nano(rate(told))
        return hash_of(made)

    begun = time.process_time()
    first = make()
    seconds = time.process_time() - begun
    r.shuffle(told)
    same = make() == first
    how = f"{len(told):,} intervals of {LEASES:,} leases to one sealed invoice; CPU time"
    yield at_most(
        "a month of 10,000 leases invoiced",
        seconds,
        "s",
        60,
        "told in another order: the same hash" if same else "OTHER HASH",
        how,
    )
    yield at_least(
        "told in another order, the same hash", float(same), "", 1, "byte for byte", "the same intervals, shuffled"
    )


def _oracle() -> Iterator[Figure]:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from money_histories import random_history
    from money_oracle import costs

    different, begun = 0, time.process_time()
    for seed in range(HISTORIES):
        history = random_history(seed)
        sums: dict[str, int] = {}
        for line in rate_all(history.intervals, history.conditions):
            sums[line.what.value] = sums.get(line.what.value, 0) + line.amount_nano
            if line.commitment_id and line.what.value in ("active", "unused"):
                sums["effective"] = sums.get("effective", 0) + line.effective_nano
        different += {what: amount for what, amount in sums.items() if amount} != costs(history)
    how = f"{HISTORIES:,} random histories against fractions, {time.process_time() - begun:.0f} CPU-s"
    yield at_most("histories that cost something else", different, "", 0, "an oracle that shares no code", how)


def _life(r: random.Random, lease: str) -> list[Interval]:
    """Some runs and stops within the month."""
    at, run, found = MONTH_START + r.randrange(20 * DAY), 1, []
    for sequence in range(1, r.randint(2, 6)):
        stopped = sequence % 2 == 0
        end = min(MONTH_END, at + r.randrange(1, 4 * DAY))
        found.append(_interval(lease, sequence, at, end, LeaseState.STOPPED if stopped else LeaseState.ACTIVE, run))
        at, run = end, run + stopped
    return found


def _interval(
    lease: str, sequence: int, start: int, end: int, state: LeaseState = LeaseState.ACTIVE, run: int = 1
) -> Interval:
    return Interval(
        lease_id=lease,
        sequence=sequence,
        tenant_id="tn-1",
        workload_id=f"wl-{lease}",
        workload_name="work",
        offer="rtx4090-half",
        state=state,
        run=run,
        start_us=start,
        end_us=end,
        node="n1",
        boot_id="boot",
        monotonic_start_ns=0,
        monotonic_end_ns=(end - start) * 1000,
        proof=Proof.OBSERVED,
        price_per_hour_nano=300_000_000 if state is LeaseState.ACTIVE else 5_000_003,
        currency="USD",
        minimum_us=60 * SECOND,
    )


def _timed(work) -> float:  # type: ignore[no-untyped-def]
    begun = time.process_time()
    work()
    return time.process_time() - begun
