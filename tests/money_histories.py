"""Random histories of tenants, leases, commitments, spot prices, tariffs and incidents, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from gpuyard.billing.commitments import Commitment, at_discount
from gpuyard.billing.conditions import Conditions, Fault, LeaseFacts, Reclaim, SpotHistory, Transfer
from gpuyard.billing.faults import faults_of
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.catalog.price_terms import Discount, Tariff, Upfront
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.model.leases import Interval, Proof, PurchaseOption
from gpuyard.model.states import LeaseState

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
START = 1_774_656_000_000_000  # 2026-03-28T00:00:00Z: the clocks of Europe change on the 29th
ZONES = ("Europe/Berlin", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
OFFERS = {"full": 1_000_000, "half": 500_000, "quarter": 250_000, "eighth": 125_000}


@dataclass(frozen=True)
class History:
    """`conditions.faults` are those that were told (`told`) and those that follow from the incidents."""

    intervals: list[Interval]
    conditions: Conditions
    told: tuple[Fault, ...] = ()
    incidents: tuple[Incident, ...] = ()


def interval(
    lease: str, sequence: int, state: LeaseState, run: int, start: int, end: int, price: int, **other: object
) -> Interval:
    facts: dict[str, object] = {
        "tenant_id": "tn-a",
        "workload_id": f"wl-{lease}",
        "workload_name": f"work-{lease}",
        "offer": "rtx4090-half",
        "minimum_us": 60 * SECOND,
        "currency": "USD",
        "node": "n1",
        **other,
    }
    return Interval(
        lease_id=lease,
        sequence=sequence,
        state=state,
        run=run,
        start_us=start,
        end_us=end,
        boot_id="boot",
        monotonic_start_ns=0,
        monotonic_end_ns=(end - start) * 1000,
        proof=Proof.OBSERVED,
        price_per_hour_nano=price,
        **facts,
    )  # type: ignore[arg-type]


def random_history(seed: int) -> History:
    """Two tenants, one to three leases, up to three days."""
    r = random.Random(seed)
    leases = [f"ls-{n}" for n in range(r.randint(1, 3))]
    facts: dict[str, LeaseFacts] = {}
    intervals: list[Interval] = []
    for lease in leases:
        fraction = r.choice(list(OFFERS))
        tenant = r.choice("ab")
        option = r.choice([PurchaseOption.ON_DEMAND, PurchaseOption.ON_DEMAND, PurchaseOption.SPOT])
        cpu_only = r.choice([0, 0, 2])  # the run that was started without a card
        slices = r.choice([1, 1, 2])
        facts[lease] = LeaseFacts("RTX4090", OFFERS[fraction], option, f"tenant-{tenant}", slices=slices)
        life = _life(r, lease, f"tn-{tenant}", f"rtx4090-{fraction}")
        intervals += [replace(each, share_ppm=0) if each.run == cpu_only else each for each in life]
    until = START + r.choice([2 * DAY, 3 * DAY, 3 * DAY + 1_234_567])
    conditions = Conditions(
        until_us=until,
        history=_history(r) if r.random() < 0.5 else None,
        facts=facts,
        commitments=tuple(_commitment(r, n) for n in range(r.choice([0, 0, 1, 2]))),
        spot={f"rtx4090-{f}": _spot(r) for f in OFFERS if r.random() < 0.7},
        reclaims=tuple(_reclaim(r, r.choice(intervals)) for _ in range(3) if r.random() < 0.4),
        transfers=tuple(_transfer(r, n, r.choice(intervals)) for n in range(r.choice([0, 1, 3]))),
        still_open=frozenset((lease, 1) for lease in leases if r.random() < 0.1),
    )
    told = tuple(_fault(r, n, r.choice(intervals)) for n in range(r.choice([0, 0, 1, 2])))
    incidents = tuple(_incident(r, n, r.choice(intervals)) for n in range(r.choice([0, 0, 1, 3])))
    faults = told + faults_of(incidents, intervals)
    return History(intervals, replace(conditions, faults=faults), told, incidents)


def _life(r: random.Random, lease: str, tenant: str, offer: str) -> list[Interval]:
    at, run, found = START + r.choice([0, r.randrange(DAY)]), 1, []
    price = r.choice([0, 1, 333_333_333, 600_000_000, r.randrange(10**10)])
    for sequence in range(1, r.randint(1, 5) + 1):
        state = r.choice([LeaseState.ACTIVE, LeaseState.ACTIVE, LeaseState.STOPPED, LeaseState.GRANTED])
        end = at + r.choice([1, 59 * SECOND, r.randrange(10 * SECOND), r.randrange(2 * HOUR), r.randrange(DAY)])
        charged = {LeaseState.ACTIVE: price, LeaseState.STOPPED: 5_000_003}.get(state, 0)
        node = r.choice(["n1", "n1", "n2"])
        cards = tuple(sorted(r.sample([f"{node}-a", f"{node}-b", f"{node}-c"], r.choice([0, 1, 1, 2]))))
        place = {"tenant_id": tenant, "offer": offer, "node": node, "card_uuids": cards}
        found.append(interval(lease, sequence, state, run, at, end, charged, **place))
        if state is LeaseState.STOPPED:
            run, price = run + 1, r.choice([price, r.randrange(10**10)])
        at = end + r.choice([0, 0, 0, r.randrange(HOUR)])
    return found


def _history(r: random.Random) -> PriceHistory:
    return PriceHistory((_book(r, 0), _book(r, START + r.randrange(2 * DAY))))


def _book(r: random.Random, begins: int) -> PriceBook:
    tariffs = tuple(
        Tariff(
            f"t{n}",
            r.choice(ZONES),
            15 * r.randrange(96),
            15 * r.randint(1, 96),
            tuple(sorted(r.sample(range(7), r.randint(1, 7)))),
            r.choice([500_000, 1_250_000, 999_999]),
        )
        for n in range(r.choice([0, 1, 2]))
    )
    discounts = tuple(
        Discount(f"tenant-{t}", r.choice([100_000, 333_333]), r.choice([(), ("RTX4090",)]))
        for t in "ab"
        if r.random() < 0.4
    )
    return PriceBook(
        "USD", 60 * SECOND, 0, {"RTX4090": 600_000_000}, tariffs=tariffs, discounts=discounts, effective_from_us=begins
    )


def _commitment(r: random.Random, n: int) -> Commitment:
    return at_discount(
        f"cm-{n}", f"tn-{r.choice('ab')}", "RTX4090", r.choice([125_000, 250_000, 1_000_000, 2_000_000]),
        600_000_000, "USD", r.choice([1, 3]), r.choice(list(Upfront)), r.choice([450_000, 123_456]),
        START + r.randrange(DAY), r.choice([None, None, "rtx4090-half", "rtx4090-quarter"]),
    )  # fmt: skip


def _spot(r: random.Random) -> SpotHistory:
    moments = sorted({START + r.choice([0, r.randrange(2 * DAY)]) for _ in range(r.randint(1, 5))})
    return SpotHistory(tuple((moment, r.randrange(10**9)) for moment in moments))


def _fault(r: random.Random, n: int, of: Interval) -> Fault:
    good = r.randint(of.start_us, of.end_us)
    return Fault(f"in-{n}", of.lease_id, good, good + r.randrange(DAY))


def _incident(r: random.Random, n: int, of: Interval) -> Incident:
    """On a card, a node, a lease or all that there is, over one interval or some; some go on, some were none."""
    good = r.choice([None, *(r.randint(of.start_us - HOUR, of.end_us) for _ in range(9))])
    closed = None if r.random() < 0.3 else (good or START) + r.choice([0, 1, r.randrange(HOUR), r.randrange(DAY)])
    outcome = None if closed is None else r.choice([Outcome.REPAIRED, Outcome.REPAIRED, Outcome.DISMISSED])
    card, node, lease = r.choice(
        [
            (r.choice([*of.card_uuids, "n1-a"]), of.node, None),
            (None, r.choice(["n1", "n2"]), None),
            (None, None, of.lease_id),
        ]
    )
    return Incident(f"ii-{n}", Cause.HARDWARE, node, card, lease, "", START, "r", good, closed, None, outcome)


def _reclaim(r: random.Random, of: Interval) -> Reclaim:
    return Reclaim(of.lease_id, of.run, of.start_us + r.randrange(2 * HOUR))


def _transfer(r: random.Random, n: int, of: Interval) -> Transfer:
    return Transfer(
        f"tr-{n % 2}", of.tenant_id, of.workload_id, of.workload_name, of.lease_id, of.offer, START + r.randrange(2 * DAY) if n > 1 else START,
        r.randrange(10**12) if n > 1 else 12345, 90_000_000, "USD",
    )  # fmt: skip
