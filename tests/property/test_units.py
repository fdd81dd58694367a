"""Sizes, shares, prices, durations and moments: what is written is read back, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.model.errors import YardError
from gpuyard.model.names import check_name, new_id
from gpuyard.model.times import day_of, from_text, to_text
from gpuyard.model.units import (
    MAX_BYTES,
    MAX_PRICE_NANO,
    SHARE_WHOLE_PPM,
    format_money,
    format_price,
    format_share,
    format_size,
    parse_duration,
    parse_price,
    parse_share,
    parse_size,
)

NONSENSE = ["", " ", "0", "-1", "1e30", "NaN", "inf", "abc", "1.5g", "1gb", "١٢", "1 GiB", "0x10", "+1", "1_000", "--"]


@given(st.integers(1, MAX_BYTES))
def test_a_size_is_read_back_as_it_was_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(1, SHARE_WHOLE_PPM))
def test_a_share_is_read_back_as_it_was_written(share_ppm: int) -> None:
    assert parse_share(format_share(share_ppm)) == share_ppm


@given(st.integers(1, 1000))
def test_n_slices_of_one_nth_always_fit_a_card(parts: int) -> None:
    assert 0 < parse_share(f"1/{parts}") * parts <= SHARE_WHOLE_PPM


@given(st.integers(0, MAX_PRICE_NANO))
def test_a_price_is_read_back_as_it_was_written(nano: int) -> None:
    assert parse_price(format_price(nano)) == nano


@given(st.integers(-(10**18), 10**18).map(lambda n: n * 1000))
def test_money_is_shown_exactly(nano: int) -> None:
    from decimal import Decimal

    assert Decimal(format_money(nano)) * 10**9 == nano


def test_money_that_would_lose_digits_is_not_shown() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        format_money(1, 6)


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_moment_is_read_back_as_it_was_written(moment_us: int) -> None:
    text = to_text(moment_us)
    assert from_text(text) == moment_us
    assert text.startswith(day_of(moment_us))


def test_a_leap_day_is_a_day() -> None:
    assert day_of(from_text("2028-02-29T23:59:59.999999Z")) == "2028-02-29"
    with pytest.raises(YardError):
        from_text("2027-02-29T00:00:00Z")


@pytest.mark.parametrize("text", ["2026-11-23T15:04:05", "2026-11-23", "now", "", "1e30", "2026-13-01T00:00:00Z"])
def test_a_moment_without_an_offset_or_that_never_was_is_refused(text: str) -> None:
    with pytest.raises(YardError) as refused:
        from_text(text)
    assert refused.value.code == "invalid_time"


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_size(text)
    assert refused.value.code == "invalid_size"


@pytest.mark.parametrize("text", [*NONSENSE, "0%", "101%", "2/1", "1/0", "0/1", "1/9999999", "0.00001%"])
def test_nonsense_is_no_share(text: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_share(text)
    assert refused.value.code == "invalid_share"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-0.01",
        "1_0",
        "١",
        " 1 ",
        "1E-9",
        ".5",
        "1.",
        "NaN",
        "Infinity",
        "1e30",
        "abc",
        "0.0000000001",
        "1000000.000000001",
    ],
)
def test_nonsense_is_no_price(text: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_price(text)
    assert refused.value.code == "invalid_price"


@pytest.mark.parametrize("text", [*NONSENSE, "1w", "999999999d", "1.5h"])
def test_nonsense_is_no_duration(text: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_duration(text)
    assert refused.value.code == "invalid_duration"


@pytest.mark.parametrize(
    ("text", "us"), [("90", 90_000_000), ("200ms", 200_000), ("15m", 900_000_000), ("1d", 86_400_000_000)]
)
def test_durations_read_as_people_write_them(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "..", "a" * 64, "名字", "a\n", "a\0"])
def test_a_name_that_could_be_misread_is_refused(name: str) -> None:
    with pytest.raises(YardError) as refused:
        check_name(name)
    assert refused.value.code == "invalid_name"


@given(st.integers(0, 2**47), st.integers(1, 10**6))
def test_ids_sort_by_their_moment_and_are_names(at_us: int, later_us: int) -> None:
    first, second = new_id("wl", at_us), new_id("wl", at_us + later_us * 1000)
    assert first != new_id("wl", at_us)
    assert first < second
    assert check_name(first) == first
