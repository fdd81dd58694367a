from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.hardware import fleet_file
from gpuyard.model.errors import YardError
from gpuyard.model.units import GIB
from gpuyard.texts import error_text

FLEET = """
[[node]]
name = "gpu-1"
cards = "8xRTX4090"
cpus = 96
memory = "512GiB"
rack = "r1"
region = "cn-east"

[[node]]
name = "gpu-2"
cards = "2xH100"
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(content: str):
        path = tmp_path / "fleet.toml"
        path.write_text(content)
        return fleet_file.load(path)

    return write_and_load


def test_a_fleet_file_describes_several_nodes(load) -> None:
    first, second = load(FLEET)
    assert (first.name, first.cpu_milli, first.memory_bytes) == ("gpu-1", 96_000, 512 * GIB)
    assert (first.rack, first.region, len(first.cards)) == ("r1", "cn-east", 8)
    assert (second.name, second.cpu_milli, second.rack, len(second.cards)) == ("gpu-2", 16_000, None, 2)
    assert len({card.uuid for node in (first, second) for card in node.cards}) == 10


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"gpu-2"', '"gpu-1"', "name"),
        ('"gpu-1"', '"GPU 1"', "name"),
        ('"gpu-1"', "1", "name"),
        ('name = "gpu-1"', "", "name"),
        ('cards = "2xH100"', "", "cards"),
        ('"2xH100"', '"2xH1000"', "cards"),
        ('"2xH100"', '"0xH100"', "cards"),
        ('"2xH100"', '["H100"]', "cards"),
        ('"2xH100"', '"100000xH100"', "cards"),
        ("96", "0", "cpus"),
        ("96", "-1", "cpus"),
        ("96", "1e30", "cpus"),
        ("96", "1000001", "cpus"),
        ("96", '"96"', "cpus"),
        ('"512GiB"', '"512GB"', "memory"),
        ('"512GiB"', "512", "memory"),
        ('"512GiB"', '"0GiB"', "memory"),
        ('"r1"', '""', "rack"),
        ("rack", "racks", "key"),
        ("[[node]]", "[node]", "TOML"),
        (FLEET, "", "node"),
        (FLEET, "[node]\nname = 'a'", "node"),
        (FLEET, "[[nodes]]", "key"),
        (FLEET, "\x00", "TOML"),
    ],
)
def test_a_broken_fleet_file_is_refused_naming_the_field(load, old: str, new: str, field: str) -> None:
    with pytest.raises(YardError) as caught:
        load(FLEET.replace(old, new))
    assert (caught.value.code, caught.value.params["field"]) == ("fleet_file_invalid", field)
    for language in ("en", "zh"):
        sentence = error_text(caught.value.code, language, caught.value.params)
        assert "fleet.toml" in sentence
        assert field in sentence


def test_a_misspelt_model_is_answered_with_the_line_as_it_should_be(load) -> None:
    with pytest.raises(YardError) as caught:
        load(FLEET.replace("8xRTX4090", "8xRTX4O90,1xL4"))
    assert caught.value.params["where"] == "node 1 (gpu-1)"
    assert caught.value.params["expected"] == "8xRTX4090,1xL4"


def test_a_fleet_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(YardError) as caught:
        fleet_file.load(tmp_path / "none.toml")
    assert caught.value.code == "fleet_file_invalid"
    assert str(tmp_path / "none.toml") in error_text("fleet_file_invalid", "en", caught.value.params)
