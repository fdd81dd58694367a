"""Rating under every purchase option, against a second opinion in fractions and against itself."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.billing.commitments import Commitment, at_discount, fees
from gpuyard.billing.conditions import Conditions, Fault, LeaseFacts, Reclaim, SpotHistory
from gpuyard.billing.coverage import Need, cover, saving_nano_hours
from gpuyard.billing.evidence import sift
from gpuyard.billing.lines import RatedLine, What, total_nano
from gpuyard.billing.rated import rate_all, units_us
from gpuyard.billing.rating import rate
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.catalog.price_terms import Tariff, Upfront
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Interval, PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.times import from_text
from money_histories import DAY, HOUR, SECOND, START, History, interval, random_history
from money_oracle import costs

ACTIVE, SPOT = LeaseState.ACTIVE, PurchaseOption.SPOT
seeds = st.integers(0, 2**32)


def sums(lines: Sequence[RatedLine]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for line in lines:
        found[line.what.value] += line.amount_nano
        if line.commitment_id and line.what in (What.ACTIVE, What.UNUSED):
            found["effective"] += line.effective_nano
    return {what: amount for what, amount in found.items() if amount}


def rated(history: History) -> tuple[RatedLine, ...]:
    return rate_all(history.intervals, history.conditions)


def test_two_thousand_histories_cost_what_the_oracle_says() -> None:
    different = [seed for seed in range(2000) if sums(rated(random_history(seed))) != costs(random_history(seed))]
    assert different == []


@pytest.mark.slow
def test_ten_thousand_more_histories_cost_what_the_oracle_says() -> None:
    different = [
        seed for seed in range(10**6, 10**6 + 10**4) if sums(rated(random_history(seed))) != costs(random_history(seed))
    ]
    assert different == []


@given(seeds, st.data())
def test_however_time_is_split_and_told_the_lines_are_the_same(seed: int, data: st.DataObject) -> None:
    history = random_history(seed)
    pieces: list[Interval] = []
    for each in history.intervals:
        cuts = sorted(data.draw(st.sets(st.integers(each.start_us, each.end_us), max_size=3)))
        pieces += [replace(each, start_us=a, end_us=b) for a, b in pairwise([each.start_us, *cuts, each.end_us])]
    by_lease: dict[str, int] = defaultdict(int)
    numbered: list[Interval] = []
    for piece in pieces:
        by_lease[piece.lease_id] += 1
        numbered.append(replace(piece, sequence=by_lease[piece.lease_id]))
    random.Random(seed).shuffle(numbered)
    assert rate_all(numbered, history.conditions) == rated(history)


@given(seeds)
def test_with_on_demand_leases_alone_the_lines_are_those_of_the_bill(seed: int) -> None:
    intervals = random_history(seed).intervals
    plain = rate(intervals)
    full = rate_all(intervals, Conditions())
    assert [(x.day, x.lease_id, x.what, x.run, x.duration_us, x.amount_nano) for x in plain] == [
        (x.day, x.lease_id, x.what.value, x.run, x.duration_us, x.amount_nano) for x in full
    ]


@given(seeds)
def test_every_line_has_an_id_of_its_own_that_a_later_rating_finds_again(seed: int) -> None:
    history = random_history(seed)
    lines = rated(history)
    assert len({line.id for line in lines}) == len(lines)
    less = rate_all(history.intervals[:1], history.conditions)
    usage = {line.id for line in less if line.what is What.STOPPED}
    assert usage <= {line.id for line in lines}


def test_four_quarters_use_as_many_units_as_one_full_card() -> None:
    quarters = [interval(f"ls-{n}", 1, ACTIVE, 1, START, START + HOUR, 10) for n in range(4)]
    facts = {f"ls-{n}": LeaseFacts("RTX4090", 250_000) for n in range(4)}
    full = [interval("ls-0", 1, ACTIVE, 1, START, START + HOUR, 10)]
    assert units_us(rate_all(quarters, Conditions(facts=facts))) == HOUR
    assert units_us(rate_all(full, Conditions(facts={"ls-0": LeaseFacts("RTX4090", 1_000_000)}))) == HOUR


# ---- spot


def on_spot(*changes: tuple[int, int], reclaims: tuple[Reclaim, ...] = ()) -> Conditions:
    return Conditions(
        facts={"ls-1": LeaseFacts("RTX4090", 500_000, SPOT)},
        spot={"rtx4090-half": SpotHistory(changes)},
        reclaims=reclaims,
    )


def test_spot_is_charged_at_the_price_in_force_and_split_where_it_changes() -> None:
    ran = interval("ls-1", 1, ACTIVE, 1, START, START + 2 * HOUR, 600_000_000)
    lines = rate_all(
        [ran], on_spot((START, 100_000_000), (START + HOUR // 2, 200_000_000), (START + HOUR, 900_000_000))
    )
    assert {line.price_per_hour_nano: line.amount_nano for line in lines} == {
        100_000_000: 50_000_000,
        200_000_000: 100_000_000,
        600_000_000: 600_000_000,  # never more than on demand
    }


@pytest.mark.parametrize(
    ("after_us", "taken_back", "charged"),
    [(HOUR - 1, True, 0), (HOUR, True, 100_000_000), (HOUR - 1, False, 100_000_000)],
)
def test_a_spot_run_taken_back_in_its_first_hour_is_free_and_later_or_by_its_tenant_is_not(
    after_us: int, taken_back: bool, charged: int
) -> None:
    ran = interval("ls-1", 1, ACTIVE, 1, START, START + after_us, 600_000_000)
    reclaims = (Reclaim("ls-1", 1, START + after_us),) if taken_back else ()
    lines = rate_all([ran], on_spot((START, 100_000_000), reclaims=reclaims))
    assert total_nano(lines) == charged
    assert {line.what for line in lines} == ({What.ACTIVE, What.RECLAIM_CREDIT} if charged == 0 else {What.ACTIVE})


def test_a_run_that_was_taken_back_gives_nothing_of_the_next_one_back() -> None:
    first = interval("ls-1", 1, ACTIVE, 1, START, START + HOUR // 4, 600_000_000)
    second = interval("ls-1", 2, ACTIVE, 2, START + HOUR // 4, START + HOUR, 600_000_000)
    told_late = Reclaim("ls-1", 1, START + HOUR // 2)
    lines = rate_all([first, second], on_spot((START, 100_000_000), reclaims=(told_late,)))
    assert {line.run for line in lines if line.what is What.RECLAIM_CREDIT} == {1}
    assert total_nano(lines) == 75_000_000


def test_a_run_that_is_taken_back_twice_is_free_each_time_that_it_came_to_less_than_an_hour() -> None:
    parts = [(0, 50), (60, 130), (140, 150)]  # minutes: free, 70 minutes that are not, free
    told = [
        interval("ls-1", n, ACTIVE, 1, START + a * 60 * SECOND, START + b * 60 * SECOND, 600_000_000)
        for n, (a, b) in enumerate(parts, 1)
    ]
    reclaims = tuple(Reclaim("ls-1", 1, each.end_us) for each in told)
    lines = rate_all(told, on_spot((START, 60_000_000), reclaims=reclaims))
    assert total_nano(lines) == 70_000_000


def test_a_short_spot_run_that_is_taken_back_pays_no_minimum_either() -> None:
    ran = interval("ls-1", 1, ACTIVE, 1, START, START + 5 * SECOND, 600_000_000)
    assert total_nano(rate_all([ran], on_spot(reclaims=(Reclaim("ls-1", 1, START + 5 * SECOND),)))) == 0


# ---- faults


def test_a_fault_credits_everything_after_the_last_proven_good_second() -> None:
    ran = interval("ls-1", 1, ACTIVE, 1, START, START + HOUR, 3_600_000_000)
    fault = Fault("in-7", "ls-1", START + 1000 * SECOND + 999_999, START + HOUR)
    lines = rate_all([ran], Conditions(faults=(fault,)))
    (credit,) = [line for line in lines if line.what is What.FAULT_CREDIT]
    assert total_nano(lines) == 1000 * 10**6  # a second costs a thousandth
    assert (credit.origin, credit.duration_us, credit.amount_nano) == ("in-7", 2600 * SECOND, -2600 * 10**6)


# ---- tariffs


def tariff_cost(from_: str, until: str, zone: str, **tariff: int) -> int:
    rule = Tariff(
        "t", zone, tariff.get("from_minute", 120), tariff.get("until_minute", 180), tuple(range(7)), 2_000_000
    )
    book = PriceBook("USD", 0, 0, {"RTX4090": 1}, tariffs=(rule,), effective_from_us=0)
    ran = interval("ls-1", 1, ACTIVE, 1, from_text(from_), from_text(until), 10**9, minimum_us=0)
    return total_nano(rate_all([ran], Conditions(history=PriceHistory((book,)))))


@pytest.mark.parametrize(
    ("day", "until", "hours_at_double"),
    [
        ("2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", 1),
        ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", 0),  # the hour from 2 to 3 does not exist
        ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", 2),  # it comes twice
        ("2028-02-29T00:00:00+01:00", "2028-03-01T00:00:00+01:00", 1),  # a leap day
        ("2026-12-31T00:00:00+01:00", "2027-01-01T00:00:00+01:00", 1),  # the end of a year
    ],
)
def test_the_clock_on_the_wall_decides_a_tariff_when_clocks_change_too(
    day: str, until: str, hours_at_double: int
) -> None:
    hours = (from_text(until) - from_text(day)) // HOUR
    assert tariff_cost(day, until, "Europe/Berlin") == (hours + hours_at_double) * 10**9


def test_a_tariff_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    rule = Tariff("weekend", "UTC", 22 * 60, 6 * 60, (5,), 500_000)  # Saturday night
    book = PriceBook("USD", 0, 0, {"RTX4090": 1}, tariffs=(rule,), effective_from_us=0)
    assert book.factor_ppm(from_text("2026-03-29T05:59:00Z")) == 500_000  # Sunday morning
    assert book.factor_ppm(from_text("2026-03-29T23:00:00Z")) == 1_000_000  # Sunday night
    assert book.factor_ppm(from_text("2026-03-28T05:00:00Z")) == 1_000_000  # Saturday morning


def test_a_new_book_does_not_touch_what_was_granted_under_the_old_one() -> None:
    night = Tariff("all day", "UTC", 0, 1440, tuple(range(7)), 2_000_000)
    old = PriceBook("USD", 0, 0, {"RTX4090": 1}, effective_from_us=0)
    new = replace(old, tariffs=(night,), effective_from_us=START + HOUR)
    conditions = Conditions(history=PriceHistory((old, new)))
    before = interval("ls-1", 1, ACTIVE, 1, START, START + 2 * HOUR, 10**9)
    after = interval("ls-2", 1, ACTIVE, 1, START + HOUR, START + 2 * HOUR, 10**9)
    assert total_nano(rate_all([before], conditions)) == 2 * 10**9
    assert total_nano(rate_all([after], conditions)) == 2 * 10**9


# ---- commitments


def committed(
    share_ppm: int, offer: str | None = None, name: str = "cm-1", upfront: Upfront = Upfront.NONE
) -> Commitment:
    return at_discount(name, "tn-a", "RTX4090", share_ppm, 1_500_000_000, "USD", 3, upfront, 450_000, START, offer)


@pytest.mark.parametrize("upfront", list(Upfront))
def test_a_term_costs_the_reference_figure_to_the_cent_however_it_is_paid(upfront: Upfront) -> None:
    three_years = committed(1_000_000, upfront=upfront)
    assert three_years.total_nano == 21_681 * 10**9
    assert three_years.saving_nano == 17_739 * 10**9
    assert three_years.end_us - three_years.start_us == 94_608_000 * SECOND
    assert total_nano(fees(three_years, 0, three_years.end_us + DAY)) == 21_681 * 10**9


def test_a_full_reservation_covers_two_halves_and_what_is_unused_is_shown_and_lost() -> None:
    conditions = Conditions(
        until_us=START + 2 * HOUR,
        facts={name: LeaseFacts("RTX4090", 500_000) for name in ("ls-1", "ls-2", "ls-3")},
        commitments=(committed(1_000_000),),
    )
    ran = [interval(f"ls-{n}", 1, ACTIVE, 1, START, START + HOUR, 10**9) for n in (1, 2, 3)]
    lines = rate_all(ran, conditions)
    used = [line for line in lines if line.what is What.ACTIVE]
    assert sorted(line.amount_nano for line in used) == [0, 0, 10**9]  # two halves covered, the third on demand
    (unused,) = [line for line in lines if line.what is What.UNUSED]
    assert (unused.duration_us, unused.amount_nano, unused.effective_nano) == (HOUR, 0, 825_000_000)
    assert sum(line.effective_nano for line in lines) == 10**9 + 2 * 825_000_000
    assert total_nano(lines) == 10**9 + 2 * 825_000_000


def test_what_one_hour_leaves_unused_does_not_help_the_next() -> None:
    conditions = Conditions(
        until_us=START + 2 * HOUR, facts={"ls-1": LeaseFacts("RTX4090", 1_000_000)}, commitments=(committed(500_000),)
    )
    ran = interval("ls-1", 1, ACTIVE, 1, START + HOUR, START + 2 * HOUR, 2 * 10**9)
    paid = sum(line.amount_nano for line in rate_all([ran], conditions) if line.what is What.ACTIVE)
    assert paid == 10**9


SHARES = (250_000, 500_000, 1_000_000)
TICK = HOUR // 4


@st.composite
def hours(draw: st.DrawFn) -> tuple[list[Need], list[Commitment]]:
    needs = [
        Need(
            (n,),
            "RTX4090",
            draw(st.sampled_from(["a", "b"])),
            draw(st.sampled_from(SHARES)),
            draw(st.integers(1, 40)),
            TICK * draw(st.integers(1, 2)),
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    commitments = [
        committed(draw(st.sampled_from(SHARES[:2])), draw(st.sampled_from([None, "a", "b"])), f"cm-{n}")
        for n in range(draw(st.integers(1, 2)))
    ]
    return needs, commitments


@given(hours())
def test_no_assignment_of_commitments_saves_more_than_the_documented_one(
    hour: tuple[list[Need], list[Commitment]],
) -> None:
    needs, commitments = hour
    covered, left = cover(needs, commitments, START // HOUR)
    assert all(rest >= 0 for rest in left.values())
    assert saving_nano_hours(covered) == brute_force(needs, commitments)


def brute_force(needs: Sequence[Need], commitments: Sequence[Commitment]) -> int:
    """Every way to hand out quarters of a card for quarters of an hour, the atoms that all of these are made of."""
    atom = 250_000 * TICK
    wants = [(need, need.share_ppm * need.duration_us // atom) for need in needs]

    def best(at: int, left: tuple[int, ...]) -> int:
        if at == len(wants):
            return 0
        need, atoms = wants[at]
        worth = need.price_per_hour_nano * atom // need.share_ppm
        fits = [commitment.offer in (None, need.offer) for commitment in commitments]
        found = 0
        for first in range((min(atoms, left[0]) if fits[0] else 0) + 1):
            second_most = min(atoms - first, left[1]) if len(left) > 1 and fits[1] else 0
            for second in range(second_most + 1):
                rest = (left[0] - first, *((left[1] - second,) if len(left) > 1 else ()))
                found = max(found, (first + second) * worth + best(at + 1, rest))
        return found

    return best(0, tuple(commitment.share_ppm * HOUR // atom for commitment in commitments))


# ---- what was told wrongly


def test_told_twice_is_once_and_told_differently_is_an_alarm_and_neither_is_billed() -> None:
    one = interval("ls-1", 1, ACTIVE, 1, START, START + HOUR, 10)
    assert sift([one, one], START + DAY).intervals == (one,)
    found = sift([one, replace(one, end_us=one.end_us + 1)], START + DAY)
    assert found.intervals == ()
    with pytest.raises(YardError, match="usage_conflict"):
        found.must_be_whole()


@pytest.mark.parametrize(
    ("start", "end", "problem"), [(START + 1, START, "negative"), (START, START + DAY + 301 * SECOND, "future")]
)
def test_negative_and_future_intervals_are_refused(start: int, end: int, problem: str) -> None:
    found = sift([interval("ls-1", 1, ACTIVE, 1, start, end, 10)], START + DAY)
    assert (found.intervals, found.refused[0].params["problem"]) == ((), problem)


@given(seeds, st.data())
def test_no_moment_of_a_lease_is_billed_twice_whatever_overlaps_and_in_any_order(
    seed: int, data: st.DataObject
) -> None:
    told = [
        replace(each, start_us=max(0, each.start_us - data.draw(st.integers(0, HOUR))))
        for each in random_history(seed).intervals
    ]
    kept = sift(told, START + 10 * DAY)
    by_lease: dict[str, int] = defaultdict(int)
    for each in kept.intervals:
        assert each.start_us >= by_lease[each.lease_id]
        by_lease[each.lease_id] = max(each.end_us, by_lease[each.lease_id])
    random.Random(seed).shuffle(told)
    assert sift(told, START + 10 * DAY).intervals == kept.intervals


def test_one_account_in_two_currencies_is_refused() -> None:
    told = [
        interval("ls-1", 1, ACTIVE, 1, START, START + 1, 1),
        interval("ls-2", 1, ACTIVE, 1, START, START + 1, 1, currency="CNY"),
    ]
    with pytest.raises(YardError, match="currency_mismatch"):
        rate_all(told, Conditions())
