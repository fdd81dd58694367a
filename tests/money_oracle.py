"""What a history costs, worked out a second time: in fractions, stretch by stretch, with a calendar and no code of the
rating's. Slow and plain: every quarter of an hour, and every moment at which anything happens, begins a new stretch."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from zoneinfo import ZoneInfo

from money_histories import HOUR, History

Totals = dict[str, int]
MICRO = 1000


def rounded(exact: Fraction) -> int:
    """Half to even, to a thousand nano."""
    scaled = exact / MICRO
    below = floor(scaled)
    twice = 2 * (scaled - below)
    return (below + (1 if twice > 1 or (twice == 1 and below % 2 == 1) else 0)) * MICRO


def utc(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def costs(history: History) -> Totals:
    """By `what` of a line the sum of amounts, and under `effective` that of all effective costs of commitments."""
    sums: dict[tuple, Fraction] = defaultdict(Fraction)
    amounts: Totals = defaultdict(int)
    needs: dict[tuple, dict[tuple, int]] = defaultdict(lambda: defaultdict(int))
    prices: dict[tuple, tuple[Fraction, int]] = {}
    for each in history.intervals:
        for start, end in stretches(history, each):
            price, credit = price_at(history, each, start), credit_at(history, each, start)
            kind = kind_of(history, each)
            if kind is None or each.price_per_hour_nano == 0:
                continue
            day = utc(start).date()
            key = (each.tenant_id, each.lease_id, kind, each.run, price, each.price_per_hour_nano, day)
            cost = Fraction(end - start, HOUR) * price
            sums[key] += cost
            if credit is not None:
                sums[(*key, credit)] -= cost
            share = history.conditions.facts[each.lease_id].share_ppm
            spot = history.conditions.facts[each.lease_id].option == "spot"
            if kind == "active" and credit is None and not spot:
                needs[each.tenant_id, start // HOUR][key] += end - start
                prices[key] = Fraction(price, share), share
    paid = commitments(history, needs, prices, sums, amounts)
    for key, exact in sums.items():
        amounts[key[7][0] if len(key) == 8 else key[2]] += rounded(exact)
    minimums(history, paid, amounts)
    egress(history, amounts)
    return {what: amount for what, amount in amounts.items() if amount}


def stretches(history: History, each) -> list[tuple[int, int]]:
    quarter = HOUR // 4
    edges = {each.start_us, each.end_us}
    edges |= set(range((each.start_us // quarter + 1) * quarter, each.end_us, quarter))
    happened = [c[0] for h in history.conditions.spot.values() for c in h.prices]
    happened += [moment for fault in history.told for moment in (fault.last_good_us // 10**6 * 10**6, fault.until_us)]
    for incident in history.incidents:
        happened += [incident.last_good_us // 10**6 * 10**6] if incident.last_good_us is not None else []
        happened += [incident.closed_us] if incident.closed_us is not None else []
    happened += [reclaim.at_us for reclaim in history.conditions.reclaims]
    edges |= {moment for moment in happened if each.start_us < moment < each.end_us}
    ordered = sorted(edges)
    return [(a, b) for a, b in pairwise(ordered) if b > a]


def kind_of(history: History, each) -> str | None:
    if each.state == "stopped":
        return "stopped"
    if each.state != "active":
        return None
    return "cpu_only" if each.share_ppm == 0 else "active"


def price_at(history: History, each, at: int) -> int:
    facts, listed = history.conditions.facts[each.lease_id], each.price_per_hour_nano
    if kind_of(history, each) != "active":
        return listed
    if facts.option == "spot":
        known = history.conditions.spot.get(each.offer)
        before = [price for moment, price in known.prices if moment <= at] if known else []
        return min(listed, facts.slices * before[-1]) if before else listed
    if history.conditions.history is None:
        return listed
    granted = min(x.start_us for x in history.intervals if (x.lease_id, x.run) == (each.lease_id, each.run))
    book = [b for b in history.conditions.history.books if b.effective_from_us <= granted][-1]
    price = listed
    for tariff in book.tariffs:
        wall = utc(at).astimezone(ZoneInfo(tariff.zone))
        minute, weekday = wall.hour * 60 + wall.minute, wall.weekday()
        if tariff.from_minute < tariff.until_minute:
            holds = weekday in tariff.days and tariff.from_minute <= minute < tariff.until_minute
        else:
            yesterday = (wall - timedelta(days=1)).weekday()
            holds = (weekday in tariff.days and minute >= tariff.from_minute) or (
                yesterday in tariff.days and minute < tariff.until_minute
            )
        if holds:
            price = ceil(Fraction(price * tariff.factor_ppm, 10**6))
            break
    fitting = [d for d in book.discounts if d.tenant == facts.tenant_name]
    return ceil(price * (1 - Fraction(fitting[0].discount_ppm, 10**6))) if fitting else price


def credit_at(history: History, each, at: int) -> tuple[str, str] | None:
    if kind_of(history, each) not in ("active", "cpu_only"):
        return None
    down = [
        (fault.last_good_us // 10**6 * 10**6, fault.incident_id)
        for fault in history.told
        if fault.lease_id == each.lease_id and fault.last_good_us // 10**6 * 10**6 <= at < fault.until_us
    ]
    down += [
        (max(each.start_us, incident.last_good_us // 10**6 * 10**6), incident.id)
        for incident in history.incidents
        if is_down(incident, each, at)
    ]
    if down:
        return "fault_credit", min(down)[1]  # whatever was down longest
    if history.conditions.facts[each.lease_id].option == "spot":
        last = 0
        for moment in sorted(
            {x.at_us for x in history.conditions.reclaims if (x.lease_id, x.run) == (each.lease_id, each.run)}
        ):
            active = [
                x for x in history.intervals if (x.lease_id, x.run, x.state) == (each.lease_id, each.run, "active")
            ]
            begins = [max(x.start_us, last) for x in active if x.end_us > last]
            if begins and 0 < moment - min(begins) < HOUR and min(begins) <= at < moment:
                return "reclaim_credit", f"{each.lease_id}/{each.run}"
            last = moment
    return None


def is_down(incident, each, at: int) -> bool:
    """Whether the incident says that what this interval ran on was not well at that moment."""
    if incident.last_good_us is None or incident.outcome == "dismissed" or each.end_us <= incident.last_good_us:
        return False
    if incident.lease_id is not None:
        on_it = each.lease_id == incident.lease_id
    elif incident.card_uuid is not None:
        on_it = incident.card_uuid in each.card_uuids
    else:
        on_it = each.node == incident.node
    over = incident.closed_us is not None and at >= incident.closed_us
    return on_it and not over and at >= incident.last_good_us // 10**6 * 10**6


def commitments(history: History, needs, prices, sums, amounts: Totals) -> dict:
    paid: dict[tuple[str, int], int] = defaultdict(int)
    until = history.conditions.until_us
    effective: dict[tuple, Fraction] = defaultdict(Fraction)
    for each in history.conditions.commitments:
        end = each.start_us + each.years * 365 * 24 * HOUR
        upfront = each.per_hour_nano * each.years * 8760 - each.recurring_per_hour_nano * each.years * 8760
        if each.start_us < until:
            amounts["reservation"] += rounded(Fraction(upfront))
        at = each.start_us
        while at < min(until, end):
            midnight = (
                int((utc(at).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)).timestamp())
                * 10**6
            )
            stop = min(midnight, until, end)
            amounts["reservation"] += rounded(Fraction(stop - at, HOUR) * each.recurring_per_hour_nano)
            at = stop
    for tenant in {each.tenant_id for each in history.conditions.commitments}:
        mine = [each for each in history.conditions.commitments if each.tenant_id == tenant]
        mine.sort(key=lambda each: (0 if each.offer else 1, each.start_us, each.id))
        for hour in range(min(each.start_us for each in mine) // HOUR, -(-until // HOUR)):
            left = {each.id: each.share_ppm * HOUR for each in mine if each.start_us <= hour * HOUR}
            used = needs.get((tenant, hour), {})
            for key in sorted(used, key=lambda key: (-prices[key][0], key[1], key[3], str(key[6]), key[4], key[5])):
                share, open_us = prices[key][1], used[key]
                offer = next(x.offer for x in history.intervals if x.lease_id == key[1])
                for each in mine:
                    if each.id in left and each.offer in (None, offer):
                        take = min(open_us, left[each.id] // share)
                        left[each.id] -= take * share
                        open_us -= take
                        sums[key] -= Fraction(take, HOUR) * key[4]
                        paid[key[1], key[3]] += take
                        effective[key, each.id] += Fraction(take * share, HOUR) * Fraction(
                            each.per_hour_nano, each.share_ppm
                        )
            if (hour + 1) * HOUR <= until:
                for each in mine:
                    day = utc(hour * HOUR).date()
                    effective[day, each.id] += Fraction(left.get(each.id, 0), HOUR) * Fraction(
                        each.per_hour_nano, each.share_ppm
                    )
    amounts["effective"] += sum(rounded(exact) for exact in effective.values())
    return paid


def minimums(history: History, paid, amounts: Totals) -> None:
    runs: dict[tuple[str, int], list] = defaultdict(list)
    for each in history.intervals:
        if each.state == "active":
            runs[each.lease_id, each.run].append(each)
    for run, parts in runs.items():
        ran = sum(part.end_us - part.start_us for part in parts)
        touched = any(
            credit_at(history, part, moment) is not None for part in parts for moment, _ in stretches(history, part)
        )
        if run in history.conditions.still_open or not 0 < ran < 60_000_000 or touched or paid[run] == ran:
            continue
        last = max(parts, key=lambda part: (part.end_us, part.sequence))
        at = max(last.start_us, last.end_us - 1)
        amounts["minimum"] += rounded(Fraction(60_000_000 - ran, HOUR) * price_at(history, last, at))


def egress(history: History, amounts: Totals) -> None:
    once = {each.id: each for each in history.conditions.transfers}
    by_day: dict[tuple, int] = defaultdict(int)
    for each in once.values():
        by_day[each.lease_id, utc(each.at_us).date()] += each.quantity_bytes
    amounts["egress"] += sum(rounded(Fraction(quantity, 2**30) * 90_000_000) for quantity in by_day.values())
