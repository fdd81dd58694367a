"""What a price book says beside the price of a card: versions, options, tariffs, discounts; and how it is refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gpuyard.catalog import price_history, prices, taxes
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.catalog.price_terms import Upfront
from gpuyard.catalog.rows import Place
from gpuyard.control.fleet_watch import unmetered
from gpuyard.model.errors import YardError
from gpuyard.model.times import from_text
from gpuyard.model.units import GIB
from gpuyard.texts import error_text

FULL = """
currency = "USD"
storage_per_gib_hour = "0.0001"
stopped_per_hour = "0.01"
egress_per_gib = "0.09"
cpu_only_per_hour = "0.02"
unit_per_hour = "0.15"

[cards.RTX4090]
on_demand = "0.60"
spot_floor = "0.12"
units = "4"

[cards.H100]
on_demand = "3.00"

[[reserved]]
years = 3
discount = "45%"

[[reserved]]
years = 3
upfront = "all"
discount = "50%"

[[reserved]]
years = 3
discount = "40%"
cards = ["H100"]

[[tariff]]
name = "night"
zone = "Asia/Shanghai"
from = "22:00"
until = "08:00"
discount = "20%"

[[discount]]
tenant = "acme"
discount = "10%"

[[discount]]
tenant = "acme"
discount = "15%"
cards = ["H100"]
"""
VERSIONS = """
currency = "USD"

[[version]]
effective_from = "2026-01-01"
effective_until = "2026-07-01"
storage_per_gib_hour = "0.0001"
[version.cards.RTX4090]
on_demand = "0.60"

[[version]]
effective_from = "2026-07-01"
storage_per_gib_hour = "0.0002"
[version.cards.RTX4090]
on_demand = "0.50"
"""


@pytest.fixture
def load(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_and_load(content: str) -> PriceHistory:
        path = tmp_path / "prices.toml"
        path.write_text(content)
        return price_history.load(path)

    return write_and_load


def refused(load, content: str) -> YardError:  # type: ignore[no-untyped-def]
    with pytest.raises(YardError) as caught:
        load(content)
    assert caught.value.code == "price_book_invalid"
    for language in ("en", "zh"):
        assert "prices.toml" in error_text(caught.value.code, language, caught.value.params)
    return caught.value


def test_every_rate_is_read(load) -> None:  # type: ignore[no-untyped-def]
    book = load(FULL).at(0)
    assert book.stopped_nano(10 * GIB) == 10_000_000 + 1_000_000
    assert (book.egress_per_gib_nano, book.cpu_only_per_hour_nano) == (90_000_000, 20_000_000)
    assert book.spot_bounds_nano("RTX4090", 250_000) == (30_000_000, 150_000_000)
    assert book.spot_bounds_nano("H100", 1_000_000) == (3_000_000_000, 3_000_000_000)  # no floor: no market
    assert book.unit_price_nano("RTX4090", 500_000) == 300_000_000  # 0.15 x 4 units x half a card
    assert book.unit_price_nano("H100", 500_000) is None


def test_a_row_that_names_the_card_comes_before_one_for_all(load) -> None:  # type: ignore[no-untyped-def]
    book = load(FULL).at(0)
    rates = [book.reserved_rate("RTX4090", 3, Upfront.NONE), book.reserved_rate("H100", 3, Upfront.NONE)]
    assert [rate.discount_ppm for rate in rates if rate] == [450_000, 400_000]
    assert book.reserved_rate("H100", 1, Upfront.NONE) is None
    assert (book.discount_ppm("acme", "RTX4090"), book.discount_ppm("acme", "H100")) == (100_000, 150_000)
    assert book.discount_ppm("other", "H100") == 0


def test_a_tariff_holds_by_the_clock_of_its_zone(load) -> None:  # type: ignore[no-untyped-def]
    book = load(FULL).at(0)
    assert book.factor_ppm(from_text("2026-05-01T22:00:00+08:00")) == 800_000
    assert book.factor_ppm(from_text("2026-05-01T21:59:59+08:00")) == 1_000_000
    assert book.factor_ppm(from_text("2026-05-01T08:00:00+08:00")) == 1_000_000


def test_an_old_book_without_any_of_this_holds_for_ever(load) -> None:  # type: ignore[no-untyped-def]
    history = load(
        'currency = "CNY"\nminimum_seconds = 30\nstorage_per_gib_hour = "0.0001"\n[cards.RTX4090]\non_demand = "2.50"\n'
    )
    (book,) = history.books
    assert (book.effective_from_us, book.tariffs, book.discounts, book.reserved) == (None, (), (), ())
    assert history.at(0) == history.at(2**60) == book
    assert price_history.load().books == (prices.load(),)


def test_each_version_holds_until_the_next_begins(load) -> None:  # type: ignore[no-untyped-def]
    history = load(VERSIONS)
    turn = from_text("2026-07-01T00:00:00Z")
    assert [history.at(moment).on_demand_nano["RTX4090"] for moment in (turn - 1, turn)] == [600_000_000, 500_000_000]
    assert history.next_change_us(turn - 1) == turn
    assert history.next_change_us(turn) is None
    with pytest.raises(YardError, match="price_not_yet"):
        history.at(from_text("2025-12-31T23:59:59Z"))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('effective_until = "2026-07-01"', 'effective_until = "2026-06-30"', "effective_until"),  # a gap
        ('effective_until = "2026-07-01"', 'effective_until = "2026-07-02"', "effective_until"),  # an overlap
        ('effective_until = "2026-07-01"', 'effective_until = "2025-07-01"', "effective_until"),
        ('effective_from = "2026-07-01"', 'effective_from = "2026-01-01"', "effective_from"),
        ('effective_from = "2026-07-01"', 'effective_from = "2026-02-30"', "effective_from"),
        ('effective_from = "2026-07-01"', 'effective_from = "2026-07-01T00:00:00"', "effective_from"),
        ('effective_from = "2026-07-01"', "", "effective_from"),
        ('effective_from = "2026-07-01"', 'effective_from = "2026-07-01"\ncurrency = "EUR"', "currency"),
        (
            'effective_from = "2026-07-01"',
            'effective_from = "2026-07-01"\neffective_until = "2027-01-01"',
            "effective_until",
        ),
        ('currency = "USD"', 'currency = "USD"\nminimum_seconds = 60', "key"),
    ],
)
def test_versions_that_leave_a_gap_overlap_or_disagree_are_refused(load, old: str, new: str, field: str) -> None:  # type: ignore[no-untyped-def]
    assert old in VERSIONS
    assert refused(load, VERSIONS.replace(old, new, 1)).params["field"] == field


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("years = 3\ndiscount", "years = 2\ndiscount", "years"),
        ('upfront = "all"', 'upfront = "some"', "upfront"),
        ('upfront = "all"\n', "", "reserved"),
        ('discount = "45%"', 'discount = "145%"', "discount"),
        ('discount = "45%"', 'discount = "0.45"', "discount"),
        ('cards = ["H100"]\n\n[[tariff]]', 'cards = ["H1OO"]\n\n[[tariff]]', "cards"),
        ('"Asia/Shanghai"', '"Asia/Atlantis"', "zone"),
        ('"Asia/Shanghai"', '"../etc/passwd"', "zone"),
        ('"22:00"', '"22:07"', "from"),
        ('"08:00"', '"25:00"', "until"),
        ('discount = "20%"', 'discount = "20%"\nsurcharge = "5%"', "discount"),
        ('discount = "20%"', 'discount = "20%"\ndays = ["monday"]', "days"),
        ('spot_floor = "0.12"', 'spot_floor = "0.61"', "spot_floor"),
        ('discount = "15%"\ncards = ["H100"]', 'discount = "15%"', "tenant"),
        ('egress_per_gib = "0.09"', 'egress_per_gib = "-1"', "egress_per_gib"),
    ],
)
def test_a_row_that_says_nothing_sensible_is_refused_naming_the_field(load, old: str, new: str, field: str) -> None:  # type: ignore[no-untyped-def]
    assert old in FULL
    assert refused(load, FULL.replace(old, new, 1)).params["field"] == field


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_books_that_the_documents_show_are_good_ones(language: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / language / "money-how-to.md"
    book, tax = re.findall(r"^```toml\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(price_history.parse_history(tomllib.loads(book), Place(prices.CODE, "prices.toml")).books) == 2
    assert len(taxes.parse(tomllib.loads(tax), Place(taxes.CODE, "taxes.toml")).rules) == 2


def test_cards_may_be_sold_by_the_compute_unit_alone_and_a_share_of_one_costs_its_share() -> None:
    rows = {"currency": "USD", "storage_per_gib_hour": "0", "unit_per_hour": "0.15"}
    place = Place("price_book_invalid", "p")
    book = prices.parse({**rows, "cards": {"RTX4090": {"units": "4"}, "H100": {"on_demand": "3", "units": "9"}}}, place)
    assert book.price_nano("RTX4090", 250_000) == 150_000_000
    assert book.price_nano("H100", 1_000_000) == 3 * 10**9  # a price of its own comes first
    for cards in ({"RTX4090": {}}, {"RTX4090": {"units": "4", "spot": "0.61"}}):
        with pytest.raises(YardError, match="price_book_invalid"):
            prices.parse({**rows, "cards": cards}, place)


def test_a_book_that_asks_for_what_nothing_measures_is_told_so_by_the_doctor() -> None:
    rows = {"currency": "USD", "storage_per_gib_hour": "0", "cards": {"RTX4090": {"on_demand": "1"}}}
    place = Place("price_book_invalid", "p")
    asking = prices.parse({**rows, "egress_per_gib": "0.09", "cpu_only_per_hour": "0.02"}, place)
    (told,) = unmetered(asking, {"process", "container"})
    assert (told.name, told.ok) == ("unmetered_egress", False)
    assert unmetered(asking, {"container"}) == []  # whose interfaces are their own
    assert unmetered(prices.parse(rows, place), {"process"}) == []


def test_spot_never_costs_less_than_the_power_where_both_are_known() -> None:
    place = Place("price_book_invalid", "p")
    rows = {"currency": "USD", "storage_per_gib_hour": "0", "power_per_kwh": "0.12", "power_overhead": "30%"}
    said = {
        "RTX4090": {"on_demand": "0.60"},
        "H100": {"on_demand": "3", "spot_floor": "0.5"},
        "L4": {"on_demand": "0.001"},
    }
    book = prices.parse({**rows, "cards": said}, place)
    assert dict(book.spot_floor_nano) == {
        "RTX4090": 450 * 120_000 * 13 // 10,  # watts, price of a watt-hour, cooling
        "H100": 500_000_000,  # what the operator says comes first
        "L4": 1_000_000,  # never more than on demand
    }
    assert book.spot_bounds_nano("RTX4090", 500_000) == (35_100_000, 300_000_000)
    unknown = prices.parse({"currency": "USD", "storage_per_gib_hour": "0", "cards": said}, place)
    assert dict(unknown.spot_floor_nano) == {"H100": 500_000_000}
