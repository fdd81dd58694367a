from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.catalog import cards, prices
from gpuyard.model.errors import YardError
from gpuyard.model.units import GIB
from gpuyard.texts import error_text

BOOK = """
currency = "CNY"
minimum_seconds = 30
storage_per_gib_hour = "0.0001"

[cards.RTX4090]
on_demand = "2.50"
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(content: str | bytes) -> prices.PriceBook:
        path = tmp_path / "prices.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return prices.load(path)

    return write_and_load


def test_the_packaged_book_has_a_price_for_every_model_and_says_that_it_is_an_example() -> None:
    book = prices.load()
    assert set(book.on_demand_nano) == set(cards.load())
    assert book.minimum_us == 60_000_000
    assert "example" in (book.source or "")


def test_an_operators_book_replaces_the_packaged_one_and_sells_only_what_it_names(load) -> None:
    book = load(BOOK)
    assert (book.currency, book.minimum_us) == ("CNY", 30_000_000)
    assert book.on_demand_nano == {"RTX4090": 2_500_000_000}
    assert book.sells("RTX4090")
    assert not book.sells("H100")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_card_without_a_price_is_refused_with_a_sentence(load, language: str) -> None:
    with pytest.raises(YardError) as caught:
        load(BOOK).price_nano("H100", 1_000_000)
    assert caught.value.code == "no_price"
    assert "H100" in error_text("no_price", language, caught.value.params)


@pytest.mark.parametrize(
    ("share_ppm", "nano"),
    [(1_000_000, 600_000_000), (500_000, 300_000_000), (62_500, 37_500_000), (333_333, 199_999_800), (1, 600)],
)
def test_a_share_costs_its_part_of_the_card_to_the_nano(share_ppm: int, nano: int) -> None:
    assert prices.load().price_nano("RTX4090", share_ppm) == nano


def test_a_part_of_a_nano_is_rounded_up(load) -> None:
    book = load(BOOK.replace('"2.50"', '"0.000000001"'))
    assert book.price_nano("RTX4090", 1) == 1
    assert book.price_nano("RTX4090", 999_999) == 1


def test_storage_is_priced_by_the_byte_and_rounded_up(load) -> None:
    book = load(BOOK)
    assert book.storage_nano(GIB) == 100_000
    assert book.storage_nano(10 * GIB) == 1_000_000
    assert book.storage_nano(1) == 1
    assert book.storage_nano(0) == 0


def test_a_card_may_be_named_by_an_alias_and_costs_nothing_if_the_operator_says_so(load) -> None:
    book = load(BOOK.replace("[cards.RTX4090]", '[cards."NVIDIA GeForce RTX 4090"]').replace('"2.50"', '"0"'))
    assert book.price_nano("RTX4090", 1_000_000) == 0


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"2.50"', "2.50", "on_demand"),
        ('"2.50"', "2", "on_demand"),
        ('"2.50"', '"-1"', "on_demand"),
        ('"2.50"', '"1e30"', "on_demand"),
        ('"2.50"', '"1e3"', "on_demand"),
        ('"2.50"', '"NaN"', "on_demand"),
        ('"2.50"', '"1000001"', "on_demand"),
        ('"2.50"', '"0.0000000001"', "on_demand"),
        ('"2.50"', '" 2.50"', "on_demand"),
        ('"2.50"', '"2_5"', "on_demand"),
        ('"2.50"', '"２.50"', "on_demand"),
        ('"2.50"', '""', "on_demand"),
        ("on_demand", "reserved", "key"),
        ('"2.50"', '"2.50"\nspot = "2.51"', "spot"),
        ('"2.50"', '"2.50"\nspot = "cheap"', "spot"),
        ('"0.0001"', '"free"', "storage_per_gib_hour"),
        ('storage_per_gib_hour = "0.0001"', "", "storage_per_gib_hour"),
        ('"CNY"', '"yuan"', "currency"),
        ('"CNY"', '"cny"', "currency"),
        ("= 30", "= 0", "minimum_seconds"),
        ("= 30", "= -60", "minimum_seconds"),
        ("= 30", "= 1e30", "minimum_seconds"),
        ("= 30", "= 86401", "minimum_seconds"),
        ("[cards.RTX4090]", "[cards.RTX4O90]", "card"),
        ("[cards.RTX4090]", '[cards."RTX 4090"]\non_demand = "1"\n[cards.RTX4090]', "card"),
        ("[cards.RTX4090]", "[cards.RTX4090]\n[cards.RTX4090]", "TOML"),
        ('[cards.RTX4090]\non_demand = "2.50"', "", "cards"),
        ('[cards.RTX4090]\non_demand = "2.50"', "[cards]", "cards"),
        ('[cards.RTX4090]\non_demand = "2.50"', '[cards]\nRTX4090 = "2.50"', "card"),
        ("currency", "[currency", "TOML"),
        ("minimum_seconds", "minimum", "key"),
    ],
)
def test_a_broken_book_is_refused_naming_the_field(load, old: str, new: str, field: str) -> None:
    assert old in BOOK
    with pytest.raises(YardError) as caught:
        load(BOOK.replace(old, new))
    assert caught.value.code == "price_book_invalid"
    assert caught.value.params["field"] == field
    for language in ("en", "zh"):
        assert "prices.toml" in error_text(caught.value.code, language, caught.value.params)


def test_an_unknown_card_in_a_book_is_answered_with_the_nearest(load) -> None:
    with pytest.raises(YardError) as caught:
        load(BOOK.replace("RTX4090", "RTX4O90"))
    assert caught.value.params["expected"] == "RTX4090"


def test_a_book_that_is_not_there_or_not_text_is_refused(load, tmp_path: Path) -> None:
    for attempt in (lambda: prices.load(tmp_path / "none.toml"), lambda: prices.load(tmp_path), lambda: load(b"\xff")):
        with pytest.raises(YardError) as caught:
            attempt()
        assert caught.value.code == "price_book_invalid"
        assert caught.value.params["field"] == "file"


def test_a_book_written_by_a_windows_editor_is_read(load) -> None:
    assert load(b"\xef\xbb\xbf" + BOOK.replace("\n", "\r\n").encode()).currency == "CNY"
