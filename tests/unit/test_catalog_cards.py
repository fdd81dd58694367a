from __future__ import annotations

from dataclasses import fields
from importlib.resources import files

import pytest

from gpuyard.catalog import cards, rows
from gpuyard.catalog.cards import CardModel
from gpuyard.model.errors import YardError
from gpuyard.texts import error_text

MODELS = list(cards.load().values())
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)

# Bandwidth as the vendors print it, GB/s, and how far their rounding may be from bus width x data rate.
PUBLISHED_BANDWIDTH = {
    "RTX3090": (936, 0.001),
    "RTX4080": (716.8, 0.001),
    "RTX4090": (1008, 0),
    "RTX5090": (1792, 0),
    "A10": (600, 0.001),
    "L4": (300, 0.001),
    "L40S": (864, 0),
    "A100-40GB": (1555, 0.001),
    "A100-80GB": (2039, 0.001),
    "A100-PCIE-40GB": (1555, 0.001),
    "A100-PCIE-80GB": (1935, 0.001),
    "H100": (3350, 0.001),
    "H100-PCIE": (2000, 0.02),
    "H200": (4800, 0),
    "MI300X": (5300, 0.005),
    "RX7900XTX": (960, 0),
    "ArcB580": (456, 0),
}

# FP32 lanes of one SM, CU or Xe core.
LANES_PER_UNIT = {
    "Ampere": {128, 64},  # GA102 and GA100
    "Ada Lovelace": {128},
    "Blackwell": {128},
    "Hopper": {128},
    "CDNA 3": {128},
    "RDNA 3": {128},
    "Xe2 (Battlemage)": {128},
}


def refusal_of(toml: str) -> YardError:
    place = rows.Place("catalog_invalid", "cards.toml")
    with pytest.raises(YardError) as caught:
        cards.parse(rows.parse(toml.encode(), place), place)
    assert caught.value.code == "catalog_invalid"
    return caught.value


def a_row(**changes: str) -> str:
    row = {
        "name": '"X1"',
        "vendor": '"nvidia"',
        "architecture": '"Test"',
        "compute_units": "1",
        "memory_mib": "1024",
        "memory_type": '"GDDR6"',
        "bus_width_bits": "64",
        "data_rate_mtps": "1000",
        "l2_kib": "1",
        "fp32_lanes": "128",
        "boost_mhz": "1000",
        "fp32_gflops": "256",
        "tdp_watts": "10",
        "pcie_generation": "4",
        "pcie_lanes": "16",
        "mps": "true",
        "source": '"a test"',
    } | changes
    return "[[card]]\n" + "".join(f"{key} = {value}\n" for key, value in row.items() if value)


def test_the_catalogue_holds_every_model_that_is_promised() -> None:
    consumer = ("RTX3090", "RTX4080", "RTX4090", "RTX5090", "RX7900XTX", "ArcB580")
    promised = (*consumer, "A10", "L4", "L40S", "A100", "H100", "H200", "MI300X")
    assert {cards.find(name).name for name in promised} <= set(cards.load())
    assert set(PUBLISHED_BANDWIDTH) == set(cards.load())


@each_model
def test_bandwidth_is_bus_width_times_data_rate_and_what_the_vendor_prints(model: CardModel) -> None:
    published, tolerance = PUBLISHED_BANDWIDTH[model.name]
    assert model.bandwidth_bytes_per_second == model.bus_width_bits // 8 * model.data_rate_mtps * 10**6
    assert model.bandwidth_bytes_per_second / 1e9 == pytest.approx(published, rel=tolerance)


def test_the_bandwidth_of_a_4090_is_exactly_1008_gigabytes_per_second() -> None:
    model = cards.find("RTX4090")
    assert (model.bus_width_bits, model.data_rate_mtps) == (384, 21_000)
    assert model.bandwidth_bytes_per_second == 1_008_000_000_000


@each_model
def test_the_fp32_rate_is_lanes_times_two_times_clock_within_one_percent(model: CardModel) -> None:
    assert model.fp32_computed_gflops == pytest.approx(model.fp32_gflops, rel=0.01)


@each_model
def test_every_compute_unit_has_as_many_lanes_as_its_architecture_says(model: CardModel) -> None:
    lanes, rest = divmod(model.fp32_lanes, model.compute_units)
    assert rest == 0
    assert lanes in LANES_PER_UNIT[model.architecture]


@each_model
def test_the_sparse_rate_is_twice_the_dense_one_where_both_are_published(model: CardModel) -> None:
    pairs = (
        (model.fp16_dense_gflops, model.fp16_sparse_gflops),
        (model.fp8_dense_gflops, model.fp8_sparse_gflops),
        (model.int8_dense_gops, model.int8_sparse_gops),
    )
    for dense, sparse in pairs:
        assert sparse is None or dense is not None
        if dense is not None and sparse is not None:
            assert dense * 2 == pytest.approx(sparse, rel=0.002)


@each_model
def test_fp8_is_twice_fp16_with_the_same_accumulation(model: CardModel) -> None:
    if model.fp8_dense_gflops is not None:
        assert model.fp16_dense_gflops is not None
        assert model.fp8_dense_gflops == pytest.approx(2 * model.fp16_dense_gflops, rel=0.005)


@each_model
def test_what_a_card_does_not_have_is_absent_and_never_zero(model: CardModel) -> None:
    engines = {"encoders", "decoders"}  # NVIDIA says itself that an A100 has no encoder
    for field in fields(model):
        value = getattr(model, field.name)
        assert not (type(value) is int and value == 0) or field.name in engines


def test_consumer_and_data_centre_cards_differ_where_the_vendors_say_so() -> None:
    consumer = cards.find("RTX4090")
    assert (consumer.nvlink_mbps, consumer.mig_instances, consumer.pcie_generation, consumer.pcie_lanes) == (
        None,
        None,
        4,
        16,
    )
    assert cards.find("RTX3090").nvlink_mbps == 112_500
    assert cards.find("RTX5090").pcie_generation == 5
    assert cards.find("H100").mig_instances == 7
    assert all(not model.mps and model.nvlink_mbps is None for model in MODELS if model.vendor != "nvidia")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("RTX4090", "RTX4090"),
        ("rtx 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("nvidia h100 80gb hbm3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIE"),
        ("NVIDIA H200", "H200"),
        ("A100", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB"),
        ("RX 7900 XTX", "RX7900XTX"),
        ("Intel(R) Arc(TM) B580 Graphics", "ArcB580"),
    ],
)
def test_a_model_is_found_by_the_names_that_people_and_drivers_use(name: str, model: str) -> None:
    assert cards.find(name).name == model


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4080 SUPER", "", "H 1000"],
)
def test_a_card_that_only_looks_like_a_known_one_is_unknown(name: str) -> None:
    assert cards.lookup(name) is None
    with pytest.raises(YardError) as caught:
        cards.find(name)
    assert caught.value.code == "unknown_card_model"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_unknown_model_is_answered_with_the_nearest_one(language: str) -> None:
    with pytest.raises(YardError) as caught:
        cards.find("RTX4O90")
    assert caught.value.params["nearest"] == "RTX4090"
    sentence = error_text(caught.value.code, language, caught.value.params)
    assert "RTX4O90" in sentence
    assert "RTX4090" in sentence


def test_every_row_names_its_source() -> None:
    assert all(len(model.source) > 20 for model in MODELS)


def test_the_data_files_are_part_of_the_package() -> None:
    data = files("gpuyard.catalog").joinpath("data")
    assert {"cards.toml", "prices.toml", "images.toml"} <= {entry.name for entry in data.iterdir()}


def test_a_whole_row_is_read() -> None:
    place = rows.Place("catalog_invalid", "cards.toml")
    (model,) = cards.parse(rows.parse(a_row().encode(), place), place).values()
    assert (model.name, model.bandwidth_bytes_per_second, model.fp16_dense_gflops) == ("X1", 8 * 10**9, None)


@pytest.mark.parametrize(
    ("toml", "field"),
    [
        (a_row(memory_mib=""), "memory_mib"),
        (a_row(memory_mib="0"), "memory_mib"),
        (a_row(memory_mib="-1"), "memory_mib"),
        (a_row(memory_mib="1e30"), "memory_mib"),
        (a_row(memory_mib="9223372036854775808"), "memory_mib"),
        (a_row(memory_mib="true"), "memory_mib"),
        (a_row(memory_mib='"1024"'), "memory_mib"),
        (a_row(fp16_dense_gflops="0"), "fp16_dense_gflops"),
        (a_row(mps="1"), "mps"),
        (a_row(source='" "'), "source"),
        (a_row(source='["a"]'), "source"),
        (a_row(aliases='"X"'), "aliases"),
        (a_row(aliases="[1]"), "aliases"),
        (a_row(vendor='"nvidai"'), "vendor"),
        (a_row(memory_gib="1"), "key"),
        (a_row() + a_row(), "name"),
        (a_row() + a_row(name='"X2"', aliases='["x-1"]'), "name"),
        ("", "card"),
        ("card = []", "card"),
        ("card = 1", "card"),
        ("cards = 1", "key"),
        ("[[card", "TOML"),
        ("x = " + "[" * 5000, "TOML"),
        ("x = 1" + "0" * 5000, "TOML"),
    ],
)
def test_a_broken_row_is_refused_naming_file_row_and_field(toml: str, field: str) -> None:
    refusal = refusal_of(toml)
    assert refusal.params["file"] == "cards.toml"
    assert refusal.params["field"] == field
    for language in ("en", "zh"):
        sentence = error_text(refusal.code, language, refusal.params)
        assert "cards.toml" in sentence
        assert field in sentence
        assert "{" not in sentence.replace("{'", "")


def test_a_refused_row_is_named_by_its_number_and_name() -> None:
    assert refusal_of(a_row() + a_row(name='"X2"', mps="1")).params["where"] == "card 2 (X2)"
