"""Money: rated lines against an oracle in fractions that shares no code with them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpuyard.billing.rating import amount_nano, rate, total_nano
from gpuyard.model.leases import Interval, Proof
from gpuyard.model.states import LeaseState

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
MINIMUM_US = 60_000_000
START_US = 1_790_000_000_000_000

durations = st.one_of(st.integers(0, 3 * 10**6), st.integers(0, 3 * DAY_US), st.sampled_from([1, MINIMUM_US, DAY_US]))
prices = st.one_of(st.integers(0, 10**10), st.sampled_from([0, 1, 333_333_333, 600_000_000]))


@st.composite
def histories(draw: st.DrawFn) -> list[Interval]:
    """A lease's runs and stops, one after the other, sometimes with a gap."""
    at_us = START_US + draw(st.integers(0, 2 * DAY_US))
    run, found = 1, []
    for sequence in range(1, draw(st.integers(1, 8)) + 1):
        state = draw(st.sampled_from([LeaseState.ACTIVE, LeaseState.ACTIVE, LeaseState.STOPPED]))
        end_us = at_us + draw(durations)
        found.append(interval("ls-1", sequence, state, run, at_us, end_us, draw(prices)))
        run += state is LeaseState.STOPPED
        at_us = end_us + draw(st.sampled_from([0, 0, 1, DAY_US]))
    return found


def interval(
    lease: str, sequence: int, state: LeaseState, run: int, start_us: int, end_us: int, price: int
) -> Interval:
    return Interval(
        lease_id=lease,
        sequence=sequence,
        tenant_id="tn-1",
        workload_id="wl-1",
        workload_name="train",
        offer="rtx4090-half",
        state=state,
        run=run,
        start_us=start_us,
        end_us=end_us,
        node="local",
        boot_id="boot",
        monotonic_start_ns=0,
        monotonic_end_ns=(end_us - start_us) * 1000,
        proof=Proof.OBSERVED,
        price_per_hour_nano=price,
        currency="USD",
        minimum_us=MINIMUM_US,
    )


def half_even(value: Fraction) -> int:
    """Python's own rounding of fractions, to a millionth of the currency, in nano-units."""
    return round(value / 1000) * 1000


@given(durations, prices)
def test_an_amount_is_the_exact_product_rounded_once_half_to_even(duration_us: int, price: int) -> None:
    assert amount_nano(duration_us, price) == half_even(Fraction(duration_us * price, HOUR_US))


@given(histories())
def test_each_line_is_what_the_oracle_says_of_its_state_run_price_and_day(history: list[Interval]) -> None:
    expected: dict[tuple[str, int, int, int], Fraction] = defaultdict(Fraction)
    for piece in history:
        at_us = piece.start_us
        while at_us < piece.end_us:
            day = at_us // DAY_US
            end_us = min(piece.end_us, (day + 1) * DAY_US)
            key = (str(piece.state), piece.run, piece.price_per_hour_nano, day)
            expected[key] += Fraction((end_us - at_us) * piece.price_per_hour_nano, HOUR_US)
            at_us = end_us
    lines = [line for line in rate(history) if line.what != "minimum"]
    assert sum(line.amount_nano for line in lines) == sum(half_even(amount) for amount in expected.values())
    for line in lines:
        assert 0 < line.duration_us <= DAY_US
        assert line.amount_nano >= 0


@given(histories(), st.data())
def test_however_an_interval_is_split_the_bill_is_the_same(history: list[Interval], data: st.DataObject) -> None:
    pieces: list[Interval] = []
    for piece in history:
        cuts = sorted(data.draw(st.sets(st.integers(piece.start_us, piece.end_us), max_size=4)))
        bounds = [piece.start_us, *cuts, piece.end_us]
        pieces += [replace(piece, start_us=a, end_us=b) for a, b in pairwise(bounds)]
    pieces = [replace(piece, sequence=n) for n, piece in enumerate(pieces, 1)]
    assert [(x.day, x.what, x.run, x.amount_nano) for x in rate(pieces)] == [
        (x.day, x.what, x.run, x.amount_nano) for x in rate(history)
    ]


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_intervals_arrive_does_not_matter(history: list[Interval], order: object) -> None:
    shuffled = history[:]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rate(shuffled) == rate(history)


@given(histories())
def test_every_run_that_ran_pays_for_at_least_a_minute(history: list[Interval]) -> None:
    lines = rate(history)
    for run in {piece.run for piece in history if piece.state is LeaseState.ACTIVE}:
        ran_us = sum(p.duration_us for p in history if p.run == run and p.state is LeaseState.ACTIVE)
        missing = [line for line in lines if line.run == run and line.what == "minimum"]
        assert sum(line.duration_us for line in missing) == (max(0, MINIMUM_US - ran_us) if ran_us else 0)


def test_a_run_that_goes_on_is_not_yet_charged_its_minimum() -> None:
    started = interval("ls-1", 1, LeaseState.ACTIVE, 1, START_US, START_US + 5_000_000, 600_000_000)
    assert [line.what for line in rate([started])] == ["active", "minimum"]
    assert [line.what for line in rate([started], frozenset({("ls-1", 1)}))] == ["active"]


def test_a_stopped_lease_pays_its_storage_and_no_minimum() -> None:
    stopped = interval("ls-1", 1, LeaseState.STOPPED, 1, START_US, START_US + HOUR_US, 5_000_000)
    lines = rate([stopped])
    assert [(line.what, line.amount_nano) for line in lines] == [("stopped", 5_000_000)]


def test_time_that_costs_nothing_makes_no_line() -> None:
    assert rate([interval("ls-1", 1, LeaseState.STOPPED, 1, START_US, START_US + HOUR_US, 0)]) == ()


def test_a_price_change_starts_a_line_of_its_own() -> None:
    cheap = interval("ls-1", 1, LeaseState.ACTIVE, 1, START_US, START_US + HOUR_US, 600_000_000)
    dear = interval("ls-1", 2, LeaseState.ACTIVE, 1, START_US + HOUR_US, START_US + 2 * HOUR_US, 900_000_000)
    lines = rate([cheap, dear])
    assert sorted(line.amount_nano for line in lines) == [600_000_000, 900_000_000]
    assert total_nano(lines) == 1_500_000_000
