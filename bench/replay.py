"""The same usage events told twice, in another order and partly twice: whether the invoices are the same byte for byte.

`GPUYARD_BENCH_REPLAY` says how many events: 200,000 where it is not set, 10 million for the whole of it (some minutes).
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator

from bench.figures import Figure, at_least
from gpuyard.billing.conditions import Conditions
from gpuyard.billing.evidence import sift
from gpuyard.billing.invoices import canonical, plain
from gpuyard.billing.issuing import Heading, invoice
from gpuyard.billing.rated import rate_all
from gpuyard.catalog.taxes import NO_TAX
from gpuyard.model.leases import Interval, Proof
from gpuyard.model.states import LeaseState

EVENTS = int(os.environ.get("GPUYARD_BENCH_REPLAY", "200000"))
SECOND = 1_000_000
HOUR = 3600 * SECOND
MONTH_START = 1_790_812_800 * SECOND  # 2026-10-01
MONTH_END = MONTH_START + 31 * 24 * HOUR
OF_A_LEASE = 500  # events
OF_A_TENANT = 20  # leases


def measure() -> Iterator[Figure]:
    begun = time.process_time()
    first = _told_once()
    second = _told_otherwise()
    seconds = time.process_time() - begun
    how = (
        f"{EVENTS:,} events told twice, the second time shuffled and some twice: {2 * EVENTS / seconds:,.0f}/CPU-second"
    )
    if first != second:
        how = f"OTHER BYTES: {first[:12]} and {second[:12]}; {how}"
    yield at_least("invoices of a replay, the same", float(first == second), "", 1, "byte for byte", how)


def _told_once() -> str:
    told = hashlib.sha256()
    for tenant in range(_tenants()):
        told.update(_invoice(tenant, _events(tenant)))
    return told.hexdigest()


def _told_otherwise() -> str:
    r = random.Random(3)
    told = hashlib.sha256()
    for tenant in range(_tenants()):
        events = _events(tenant)
        events += r.sample(events, len(events) // 50)
        r.shuffle(events)
        told.update(_invoice(tenant, events))
    return told.hexdigest()


def _tenants() -> int:
    return -(-EVENTS // (OF_A_LEASE * OF_A_TENANT))


def _invoice(tenant: int, events: list[Interval]) -> bytes:
    """The bytes of the tenant's invoice over what was told."""
    evidence = sift(events, MONTH_END)
    evidence.must_be_whole()
    lines = rate_all(evidence.intervals, Conditions(until_us=MONTH_END))
    head = Heading(f"INV-{tenant:06}", f"tn-{tenant}", "tenant", "USD", MONTH_START, MONTH_END, MONTH_END, "")
    return canonical(plain(invoice(head, lines, [], NO_TAX)))


def _events(tenant: int) -> list[Interval]:
    """What a tenant's leases did in the month: the same whenever it is asked."""
    r = random.Random(tenant)
    count = min(OF_A_LEASE * OF_A_TENANT, EVENTS - tenant * OF_A_LEASE * OF_A_TENANT)
    return [
        each
        for n in range(-(-count // OF_A_LEASE))
        for each in _life(r, tenant, n, min(OF_A_LEASE, count - n * OF_A_LEASE))
    ]


def _life(r: random.Random, tenant: int, number: int, count: int) -> Iterator[Interval]:
    lease = f"ls-{tenant:04}-{number:02}"
    at, run, price = MONTH_START + r.randrange(HOUR), 1, r.choice([150_000_000, 300_000_000, 333_333_333])
    for sequence in range(1, count + 1):
        end = at + r.randrange(1, 3 * HOUR // 2)
        stopped = r.random() < 0.05
        yield Interval(
            lease_id=lease,
            sequence=sequence,
            tenant_id=f"tn-{tenant}",
            workload_id=f"wl-{lease}",
            workload_name="work",
            offer="rtx4090-half",
            state=LeaseState.STOPPED if stopped else LeaseState.ACTIVE,
            run=run,
            start_us=at,
            end_us=min(end, MONTH_END),
            node="n1",
            boot_id="boot",
            monotonic_start_ns=0,
            monotonic_end_ns=(end - at) * 1000,
            proof=Proof.OBSERVED,
            price_per_hour_nano=5_000_003 if stopped else price,
            currency="USD",
            minimum_us=60 * SECOND,
            share_ppm=0 if stopped else 500_000,
        )
        at, run = min(end, MONTH_END), run + stopped
