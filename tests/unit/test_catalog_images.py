from __future__ import annotations

import pytest

from gpuyard.catalog import images, rows
from gpuyard.model.errors import YardError
from gpuyard.texts import error_text

ROW = """
[[image]]
name = "tool"
reference = "registry.example/team/tool:1"
purpose_en = "To test"
purpose_zh = "测试"
ports = [8080]
source = "a test"
"""


def parse(toml: str) -> dict[str, images.ImageModel]:
    place = rows.Place("catalog_invalid", "images.toml")
    return images.parse(rows.parse(toml.encode(), place), place)


def test_host_is_this_machines_own_programs() -> None:
    assert images.find("host").reference is None
    assert images.resolve("host") is None


def test_every_other_image_names_its_registry_a_tag_and_what_it_is_for() -> None:
    for image in images.load().values():
        assert set(image.purposes) == {"en", "zh"}
        assert image.name == "host" or ":" in (image.reference or "").rpartition("/")[2]


def test_a_catalogue_name_stands_for_its_reference() -> None:
    assert (images.resolve("python") or "").startswith("docker.io/library/python:")


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu",
        "ubuntu:24.04",
        "localhost/mine:latest",
        "localhost:5000/mine",
        "quay.io/a/b/c:v1.2-rc_3",
        "registry.example:5000/a@sha256:" + "0" * 64,
    ],
)
def test_any_other_reference_is_taken_as_it_is(reference: str) -> None:
    assert images.resolve(reference) == reference


@pytest.mark.parametrize(
    "reference",
    ["", " ", "-v", "--privileged", "a b", "../x", "UPPER", "a:", "a/", "/a", "a//b", "a@sha256:12", "a\n", "x" * 513],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_can_be_no_reference_is_refused(reference: str, language: str) -> None:
    with pytest.raises(YardError) as caught:
        images.resolve(reference)
    assert caught.value.code == "unknown_image"
    assert "{" not in error_text("unknown_image", language, caught.value.params)


def test_a_row_is_read() -> None:
    image = parse(ROW)["tool"]
    assert (image.reference, image.ports, image.purposes["zh"]) == ("registry.example/team/tool:1", (8080,), "测试")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("8080", "0", "ports"),
        ("8080", "65536", "ports"),
        ("8080", '"8080"', "ports"),
        ('"tool"', '"Tool"', "name"),
        ("registry.example/", "", "reference"),
        ("purpose_zh", "purpose", "key"),
        ('source = "a test"', "", "source"),
        ('source = "a test"', 'source = "a test"\n' + ROW, "name"),
    ],
)
def test_a_broken_row_is_refused_naming_the_field(old: str, new: str, field: str) -> None:
    with pytest.raises(YardError) as caught:
        parse(ROW.replace(old, new))
    assert (caught.value.code, caught.value.params["field"]) == ("catalog_invalid", field)
