"""Whatever is written into a spec, a fleet file or a price book: a value or a YardError with a sentence, nothing else."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gpuyard.catalog import cards, images, prices, rows
from gpuyard.hardware import fleet_file
from gpuyard.hardware.simulated import MAX_CARDS, parse_spec
from gpuyard.model.errors import YardError
from gpuyard.model.units import NANO, SHARE_WHOLE_PPM
from gpuyard.texts import error_text

BOOK = prices.load()
MODELS = sorted(cards.load())

toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["node", "cards", "currency", "storage_per_gib_hour", "minimum_seconds", "name", "memory"])
toml_tables = st.dictionaries(keys | st.text(max_size=10), toml_values, max_size=5)


def told(error: YardError, *codes: str) -> None:
    assert error.code in codes
    for language in ("en", "zh"):
        assert not error_text(error.code, language, error.params).startswith("error.")


@given(st.text(max_size=60) | st.from_regex(r"[0-9]{1,7}x[A-Za-z0-9 -]{1,12}(,[0-9]{0,3}x?RTX4090)?", fullmatch=True))
def test_any_text_is_a_fleet_spec_or_refused(text: str) -> None:
    try:
        parts = parse_spec(text)
    except YardError as error:
        told(error, "fleet_spec_invalid", "unknown_card_model", "mig_not_there")
    else:
        assert 1 <= sum(group.count for group in parts) <= MAX_CARDS


groups = st.tuples(st.sampled_from(MODELS), st.integers(1, 500), st.booleans())


@given(st.lists(groups, min_size=1, max_size=5))
def test_every_spec_that_is_written_is_read_back(drawn: list[tuple[str, int, bool]]) -> None:
    parts = [(model, count, mig and cards.find(model).mig_instances is not None) for model, count, mig in drawn]
    spec = ",".join(f"{count}x{model}{':mig' if mig else ''}" for model, count, mig in parts)
    assert [(group.model.name, group.count, group.mig) for group in parse_spec(spec)] == parts


@given(st.binary(max_size=200))
def test_any_bytes_are_a_toml_file_or_refused(content: bytes) -> None:
    try:
        rows.parse(content, rows.Place("fleet_file_invalid", "fleet.toml"))
    except YardError as error:
        told(error, "fleet_file_invalid")


@given(toml_tables, st.lists(toml_tables, max_size=3))
def test_any_tables_are_a_fleet_or_refused(head: dict[str, object], nodes: list[dict[str, object]]) -> None:
    try:
        fleet_file.parse({**head, "node": nodes}, rows.Place("fleet_file_invalid", "fleet.toml"))
    except YardError as error:
        told(error, "fleet_file_invalid")


@given(toml_tables, st.dictionaries(st.sampled_from(MODELS) | st.text(max_size=8), toml_values, max_size=3))
def test_any_tables_are_a_price_book_or_refused(head: dict[str, object], sections: dict[str, object]) -> None:
    try:
        prices.parse({**head, "cards": sections}, rows.Place("price_book_invalid", "prices.toml"))
    except YardError as error:
        told(error, "price_book_invalid")


@given(st.decimals(min_value=0, max_value=10**6, places=9), st.integers(1, SHARE_WHOLE_PPM))
def test_a_share_costs_at_least_its_part_and_less_than_a_nano_more(price: Decimal, share_ppm: int) -> None:
    values = {"currency": "USD", "storage_per_gib_hour": "0", "cards": {"L4": {"on_demand": f"{price:f}"}}}
    book = prices.parse(values, rows.Place("price_book_invalid", "prices.toml"))
    exact = price * NANO * share_ppm / SHARE_WHOLE_PPM
    assert 0 <= book.price_nano("L4", share_ppm) - exact < 1


@given(st.sampled_from(MODELS), st.lists(st.integers(1, SHARE_WHOLE_PPM), min_size=1, max_size=16))
def test_cutting_a_card_never_makes_it_cheaper(model: str, shares: list[int]) -> None:
    together = sum(shares)
    if together <= SHARE_WHOLE_PPM:
        assert sum(BOOK.price_nano(model, share) for share in shares) >= BOOK.price_nano(model, together)


@given(st.text(max_size=80))
def test_any_name_finds_a_card_model_or_is_answered_with_the_nearest(name: str) -> None:
    try:
        cards.find(name)
    except YardError as error:
        told(error, "unknown_card_model")
        near = error.params["nearest"]
    else:
        near = cards.find(name).name
    assert near in cards.load()


@given(st.text(max_size=80) | st.from_regex(r"[a-z.:0-9]{1,10}/[a-z0-9._/:@-]{1,40}", fullmatch=True))
def test_any_image_name_is_a_reference_or_refused(name: str) -> None:
    try:
        reference = images.resolve(name)
    except YardError as error:
        told(error, "unknown_image")
    else:
        assert reference is None or (reference[0] != "-" and not any(character.isspace() for character in reference))
