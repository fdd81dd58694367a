"""Images: short names for container references, and `host` for this machine's own programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from gpuyard.catalog import rows
from gpuyard.model.errors import YardError

HOST: Final = "host"

# [registry.example[:5000]/]path/name[:tag][@sha256:...]. A catalogue row must name its registry: engines
# differ in which one they take for a short name.
_REGISTRY: Final = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]{1,5})/"
_PATH: Final = (
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_FULL = re.compile(_REGISTRY + _PATH)
_ANY = re.compile(f"(?:{_REGISTRY})?{_PATH}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ImageModel:
    """A catalogue image. `reference` None: this machine's own programs."""

    name: str
    reference: str | None
    purposes: Mapping[str, str]  # language -> what it is for
    ports: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageRow:
    name: str
    reference: str | None = None
    purpose_en: str
    purpose_zh: str
    ports: tuple[int, ...] = ()
    source: str


@cache
def load() -> Mapping[str, ImageModel]:
    """Every image by its name, in the order of the file. Raises YardError `catalog_invalid`."""
    return MappingProxyType(parse(*rows.packaged("images.toml", "catalog_invalid")))


def parse(values: Mapping[str, Any], place: rows.Place) -> dict[str, ImageModel]:
    """The rows of an image file. Raises YardError `place.code`."""
    rows.only(values, ("image",), place)
    images: dict[str, ImageModel] = {}
    for row, at in rows.tables(values, "image", place):
        image = _image(rows.build(_ImageRow, row, at), at)
        if image.name in images:
            raise at.refuse("name", image.name, "unique")
        images[image.name] = image
    return images


def find(name: str) -> ImageModel:
    """The catalogue image of this name. Raises YardError `unknown_image`."""
    image = load().get(name)
    if image is None:
        raise YardError("unknown_image", image=name[:200], known=", ".join(load()))
    return image


def resolve(name: str) -> str | None:
    """The container reference that a tenant means: a catalogue name's, or the name itself; None for `host`. Whether the
    engine has such an image, or may fetch it, is for the runtime to say.

    Raises YardError `unknown_image` for what can be no reference.
    """
    image = load().get(name)
    if image is not None:
        return image.reference
    if len(name) > 512 or _ANY.fullmatch(name) is None:
        raise YardError("unknown_image", image=name[:200], known=", ".join(load()))
    return name


def _image(row: _ImageRow, at: rows.Place) -> ImageModel:
    if _NAME.fullmatch(row.name) is None:
        raise at.refuse("name", row.name, "a-z 0-9 -, <= 63")
    if row.reference is not None and _FULL.fullmatch(row.reference) is None:
        raise at.refuse("reference", row.reference, '"registry.example/name:tag"')
    for port in row.ports:
        if not 0 < port < 65536:
            raise at.refuse("ports", port, "1..65535")
    return ImageModel(
        name=row.name,
        reference=row.reference,
        purposes={"en": row.purpose_en, "zh": row.purpose_zh},
        ports=row.ports,
        source=row.source,
    )
