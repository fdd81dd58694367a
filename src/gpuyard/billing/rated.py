"""Intervals -> rated lines under every purchase option. Exact, and the same however the time is split or told.

With nothing but on-demand leases the lines are those of `gpuyard.billing.rating`, to the last digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpuyard.billing.commitments import Commitment, fees
from gpuyard.billing.conditions import Conditions, LeaseFacts, Transfer
from gpuyard.billing.coverage import Need, by_tenant, cover
from gpuyard.billing.lines import RatedLine, What, bytes_cost, round_micro, time_cost
from gpuyard.billing.pieces import Cutter, Piece
from gpuyard.model.errors import YardError
from gpuyard.model.leases import UNPRICED, Interval, PurchaseOption
from gpuyard.model.times import day_of
from gpuyard.model.units import HOUR_US, SHARE_WHOLE_PPM


@dataclass(frozen=True, slots=True)
class _Key:
    """Everything that is one line belongs together, however it was split."""

    lease_id: str
    day: str
    what: What
    run: int
    price_nano: int
    list_nano: int
    credit: tuple[What, str] | None = None  # what for, and which incident or run it comes from


Durations = dict[_Key, int]
# (tenant, hour) -> what was used in it that a commitment may pay for
Hours = dict[tuple[str, int], dict[_Key, int]]


def rate_all(intervals: Sequence[Interval], conditions: Conditions) -> tuple[RatedLine, ...]:
    """The lines of intervals that `evidence.sift` has let through, with the fees and the unused of commitments.

    Raises YardError `currency_mismatch` where an account's intervals are in several currencies.
    """
    intervals = [interval for interval in intervals if interval.currency != UNPRICED]
    _must_agree(intervals, conditions.commitments)
    cutter = Cutter(intervals, conditions)
    origin = _origins(intervals)
    durations: Durations = defaultdict(int)
    hours: Hours = defaultdict(lambda: defaultdict(int))
    committed = by_tenant(conditions.commitments)
    for interval in intervals:
        for piece in cutter.pieces(interval):
            _add(piece, durations, hours, committed.keys())
    lines: list[RatedLine] = []
    covered_us: dict[tuple[str, int], int] = defaultdict(int)
    for tenant, commitments in committed.items():
        lines += _committed(tenant, commitments, conditions, hours, durations, covered_us, origin, cutter)
    lines += [_usage(origin[key.lease_id], key, us, cutter) for key, us in durations.items() if us]
    lines += _minimums(intervals, conditions, cutter, covered_us)
    lines += transfer_lines(conditions.transfers, conditions.facts)
    return tuple(sorted(lines, key=_place))


def _place(line: RatedLine) -> tuple[object, ...]:
    return line.day, line.workload_id, line.lease_id, line.run, line.what, line.price_per_hour_nano, line.key


def _must_agree(intervals: Iterable[Interval], commitments: Iterable[Commitment]) -> None:
    known: dict[str, str] = {}
    told = [(interval.tenant_id, interval.currency, interval.lease_id) for interval in intervals]
    told += [(commitment.tenant_id, commitment.currency, commitment.id) for commitment in commitments]
    for tenant, currency, what in told:
        if known.setdefault(tenant, currency) != currency:
            raise YardError("currency_mismatch", what=what, found=currency, expected=known[tenant])


def _origins(intervals: Iterable[Interval]) -> dict[str, Interval]:
    """By lease the interval that names its workload: the newest, whatever order they come in."""
    found: dict[str, Interval] = {}
    for interval in intervals:
        known = found.get(interval.lease_id)
        if known is None or interval.sequence >= known.sequence:
            found[interval.lease_id] = interval
    return found


def _add(piece: Piece, durations: Durations, hours: Hours, committed: Iterable[str]) -> None:
    interval = piece.interval
    list_nano = interval.price_per_hour_nano
    key = _Key(interval.lease_id, piece.day, piece.what, interval.run, piece.price_nano, list_nano)
    us = piece.end_us - piece.start_us
    if piece.credit is not None:
        durations[replace(key, credit=(piece.credit.what, piece.credit.origin))] += us
    durations[key] += us
    if piece.coverable and interval.tenant_id in committed:
        hours[interval.tenant_id, piece.start_us // HOUR_US][key] += us


def _committed(
    tenant: str,
    commitments: Sequence[Commitment],
    conditions: Conditions,
    hours: Hours,
    durations: Durations,
    covered_us: dict[tuple[str, int], int],
    origin: dict[str, Interval],
    cutter: Cutter,
) -> list[RatedLine]:
    """A tenant's commitments: what they cover, taken off `durations`, what they leave unused, and their fees."""
    paid: dict[tuple[_Key, str], int] = defaultdict(int)
    unused: dict[tuple[str, str], int] = defaultdict(int)
    first = min(each.start_us for each in commitments) // HOUR_US
    last = -(-min(conditions.until_us, max(each.end_us for each in commitments)) // HOUR_US)
    for hour in range(first, last):
        used = hours.get((tenant, hour), {})
        needs = [_need(key, us, origin[key.lease_id], cutter.facts(origin[key.lease_id])) for key, us in used.items()]
        keys = {_need_key(key): key for key in used}
        covered, left = cover(needs, commitments, hour)
        for each in covered:
            key = keys[each.need.key]
            paid[key, each.commitment.id] += each.duration_us
            durations[key] -= each.duration_us
            covered_us[key.lease_id, key.run] += each.duration_us
        if (hour + 1) * HOUR_US <= conditions.until_us:  # an hour that goes on may still be used
            for commitment_id, rest in left.items():
                unused[commitment_id, day_of(hour * HOUR_US)] += rest
    known = {each.id: each for each in commitments}
    lines = [
        _covered(origin[key.lease_id], key, us, known[commitment_id], cutter)
        for (key, commitment_id), us in paid.items()
    ]
    lines += [_unused(known[commitment_id], day, rest) for (commitment_id, day), rest in unused.items() if rest]
    for each in commitments:
        lines += fees(each, each.start_us, min(conditions.until_us, each.end_us))
    return lines


def _need_key(key: _Key) -> tuple[str | int, ...]:
    return key.lease_id, key.run, key.day, key.price_nano, key.list_nano


def _need(key: _Key, us: int, interval: Interval, facts: LeaseFacts) -> Need:
    return Need(_need_key(key), facts.card_model, interval.offer, facts.share_ppm, key.price_nano, us)


def _usage(origin: Interval, key: _Key, us: int, cutter: Cutter) -> RatedLine:
    cost = round_micro(time_cost(us, key.price_nano))
    listed = round_micro(time_cost(us, key.list_nano))
    if key.credit is not None:
        what, comes_from = key.credit
        return _line(origin, key, us, -cost, cutter, what=what, listed=-listed, origin_of=comes_from)
    return _line(origin, key, us, cost, cutter, listed=listed)


def _covered(origin: Interval, key: _Key, us: int, commitment: Commitment, cutter: Cutter) -> RatedLine:
    share = cutter.facts(origin).share_ppm
    line = _line(origin, key, us, 0, cutter, listed=round_micro(time_cost(us, key.list_nano)), by=commitment.id)
    spread = round_micro(time_cost(us * share, commitment.per_hour_nano) / commitment.share_ppm)
    return replace(line, effective_nano=spread)


def _line(
    origin: Interval,
    key: _Key,
    us: int,
    amount_nano: int,
    cutter: Cutter,
    listed: int = 0,
    what: What | None = None,
    origin_of: str = "",
    by: str = "",
) -> RatedLine:
    facts = cutter.facts(origin)
    cardless = key.what is What.CPU_ONLY
    return RatedLine(
        tenant_id=origin.tenant_id,
        workload_id=origin.workload_id,
        workload_name=origin.workload_name,
        lease_id=origin.lease_id,
        offer=origin.offer,
        day=key.day,
        what=what or key.what,
        run=key.run,
        duration_us=us,
        price_per_hour_nano=key.price_nano,
        amount_nano=amount_nano,
        currency=origin.currency,
        option=PurchaseOption.RESERVED if by else facts.option,
        card_model="" if cardless else facts.card_model,
        share_ppm=0 if cardless else facts.share_ppm,
        list_price_per_hour_nano=key.list_nano,
        list_nano=listed,
        effective_nano=amount_nano,
        commitment_id=by,
        origin=origin_of,
        tags=facts.tags,
    )


def _unused(commitment: Commitment, day: str, rest: int) -> RatedLine:
    """What a commitment could have paid for and did not: `rest` is share x microseconds."""
    return RatedLine(
        tenant_id=commitment.tenant_id,
        workload_id="",
        workload_name="",
        lease_id="",
        offer=commitment.offer or "",
        day=day,
        what=What.UNUSED,
        run=0,
        duration_us=rest // commitment.share_ppm,
        price_per_hour_nano=0,
        amount_nano=0,
        currency=commitment.currency,
        option=PurchaseOption.RESERVED,
        card_model=commitment.card_model,
        share_ppm=commitment.share_ppm,
        list_price_per_hour_nano=commitment.list_per_hour_nano,
        list_nano=0,
        effective_nano=round_micro(time_cost(rest, commitment.per_hour_nano) / commitment.share_ppm),
        commitment_id=commitment.id,
    )


def _minimums(
    intervals: Iterable[Interval], conditions: Conditions, cutter: Cutter, covered_us: dict[tuple[str, int], int]
) -> list[RatedLine]:
    """What runs that have ended were short of their minimum. None for a run that the yard gave back any of, or that
    commitments paid for wholly."""
    runs: dict[tuple[str, int], list[Interval]] = defaultdict(list)
    for interval in intervals:
        if interval.runs:
            runs[interval.lease_id, interval.run].append(interval)
    lines: list[RatedLine] = []
    for run, parts in runs.items():
        ran_us = sum(part.duration_us for part in parts)
        missing_us = max(part.minimum_us for part in parts) - ran_us
        paid = covered_us.get(run, 0) == ran_us or any(cutter.credited(part) for part in parts)
        if run in conditions.still_open or ran_us == 0 or missing_us <= 0 or paid:
            continue
        last = max(parts, key=lambda part: (part.end_us, part.sequence))
        price, listed = cutter.price_at_end(last), last.price_per_hour_nano
        key = _Key(last.lease_id, day_of(last.end_us), What.MINIMUM, last.run, price, listed)
        lines.append(_usage(last, key, missing_us, cutter))
    return lines


def transfer_lines(transfers: Iterable[Transfer], facts: Mapping[str, LeaseFacts]) -> list[RatedLine]:
    """What was sent, by lease, day and price. `facts`: for the labels that its lines bear."""
    once = {transfer.id: transfer for transfer in transfers}
    sums: dict[tuple[str, str, int], int] = defaultdict(int)
    origin: dict[str, Transfer] = {}
    for transfer in sorted(once.values(), key=lambda each: (each.at_us, each.id)):
        sums[transfer.lease_id, day_of(transfer.at_us), transfer.price_per_gib_nano] += transfer.quantity_bytes
        origin[transfer.lease_id] = transfer
    return [
        _egress(origin[lease], day, price, quantity, facts[lease].tags if lease in facts else ())
        for (lease, day, price), quantity in sums.items()
        if price
    ]


def _egress(
    origin: Transfer, day: str, price_nano: int, quantity_bytes: int, tags: tuple[tuple[str, str], ...]
) -> RatedLine:
    cost = round_micro(bytes_cost(quantity_bytes, price_nano))
    return RatedLine(
        tenant_id=origin.tenant_id,
        workload_id=origin.workload_id,
        workload_name=origin.workload_name,
        lease_id=origin.lease_id,
        offer=origin.offer,
        day=day,
        what=What.EGRESS,
        run=0,
        duration_us=0,
        price_per_hour_nano=price_nano,
        amount_nano=cost,
        currency=origin.currency,
        list_price_per_hour_nano=price_nano,
        list_nano=cost,
        effective_nano=cost,
        quantity_bytes=quantity_bytes,
        tags=tags,
    )


def units_us(lines: Iterable[RatedLine]) -> int:
    """Compute units of these lines, as cards x microseconds: the share of a card times its time."""
    time = sum(line.share_ppm * line.duration_us for line in lines if line.what is What.ACTIVE)
    return time // SHARE_WHOLE_PPM
