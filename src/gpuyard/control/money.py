"""What has been used and what it costs, from closed intervals and from meters that still run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.billing.conditions import Conditions
from gpuyard.billing.faults import faults_of
from gpuyard.billing.lines import RatedLine
from gpuyard.billing.rated import rate_all
from gpuyard.billing.rating import Line, rate, total_nano
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.control.egress import transfers
from gpuyard.control.rating_conditions import are_plain, conditions_of
from gpuyard.model.leases import Interval, Proof
from gpuyard.store import egress, incidents, meters
from gpuyard.store.egress import Sent


@dataclass(frozen=True, slots=True)
class Bill:
    """Rated lines, complete up to the last proven moments."""

    lines: tuple[Line, ...]
    total_nano: int


def make_bill(
    c: Connection, tenant_id: str | None, workload_id: str | None = None, prices: PriceHistory | None = None
) -> Bill:
    """Everything that a tenant (or one workload) has used so far. A lease that still runs is counted up to the last
    moment proven; its minimum is not charged before its run has ended."""
    if not are_plain(c, prices, tenant_id):
        rated = [line for line in rated_lines(c, prices, tenant_id) if workload_id in (None, line.workload_id)]
        lines = tuple(_as_line(line) for line in rated)
        return Bill(lines, total_nano(lines))
    intervals, open_runs = _used(c, tenant_id, workload_id)
    lines = plain_lines(c, intervals, open_runs, egress.of_tenant(c, tenant_id, workload_id))
    return Bill(lines, total_nano(lines))


def plain_lines(
    c: Connection, intervals: Sequence[Interval], open_runs: frozenset[tuple[str, int]], sent: Sequence[Sent]
) -> tuple[Line, ...]:
    """The lines of leases on demand at fixed prices, with what incidents give back of them and what they sent."""
    faults = faults_of(incidents.giving_back(c), intervals)
    if not faults and not sent:
        return rate(intervals, open_runs)
    conditions = Conditions(faults=faults, transfers=transfers(sent), still_open=open_runs)
    return tuple(_as_line(line) for line in rate_all(intervals, conditions))


def rated_lines(
    c: Connection, prices: PriceHistory | None, tenant_id: str | None, until_us: int | None = None
) -> tuple[RatedLine, ...]:
    """The same under every purchase option, with all that is known of each line. `until_us`: how far commitments are
    charged; the last proven moment of anything where it is not given."""
    intervals, open_runs = _used(c, tenant_id, None)
    reached = until_us if until_us is not None else max((each.end_us for each in intervals), default=0)
    return rate_all(intervals, conditions_of(c, prices, tenant_id, intervals, open_runs, reached))


def _used(
    c: Connection, tenant_id: str | None, workload_id: str | None
) -> tuple[list[Interval], frozenset[tuple[str, int]]]:
    """Intervals, those that would be if running meters were closed now, and the runs that go on."""
    intervals = meters.intervals(c, tenant_id, workload_id, None, None, None, None)
    running = [
        meter
        for meter in meters.open_meters(c).values()
        if tenant_id in (None, meter.tenant_id) and workload_id in (None, meter.workload_id)
    ]
    open_runs = frozenset((meter.lease_id, meter.run) for meter in running if meter.state != "stopped")
    return [*intervals, *(provisional(meter) for meter in running)], open_runs


def _as_line(line: RatedLine) -> Line:
    return Line(
        tenant_id=line.tenant_id,
        workload_id=line.workload_id,
        workload_name=line.workload_name,
        lease_id=line.lease_id,
        offer=line.offer,
        day=line.day,
        what=line.what.value,
        run=line.run,
        duration_us=line.duration_us,
        price_per_hour_nano=line.price_per_hour_nano,
        amount_nano=line.amount_nano,
        currency=line.currency,
        origin=line.origin,
        quantity_bytes=line.quantity_bytes,
    )


def provisional(meter: meters.Meter) -> Interval:
    """The interval that a running meter would become if it were closed at its last proven moment. Sequence 0."""
    return Interval(
        lease_id=meter.lease_id,
        sequence=0,
        tenant_id=meter.tenant_id,
        workload_id=meter.workload_id,
        workload_name=meter.workload_name,
        offer=meter.offer,
        state=meter.state,
        run=meter.run,
        start_us=meter.start_us,
        end_us=meter.proven_us,
        node=meter.node,
        boot_id=meter.boot_id,
        monotonic_start_ns=meter.monotonic_start_ns,
        monotonic_end_ns=meter.proven_ns,
        proof=Proof.LAST_PROVEN,
        price_per_hour_nano=meter.price_per_hour_nano,
        currency=meter.currency,
        minimum_us=meter.minimum_us,
        card_uuids=meter.card_uuids,
        share_ppm=meter.share_ppm,
    )
