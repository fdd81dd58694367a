"""Other clouds' names for what a yard has: instance types and images that customers' scripts carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from gpuyard.catalog import rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _TypeRow:
    pattern: str
    offer: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageRow:
    pattern: str
    image: str
    source: str


@dataclass(frozen=True, slots=True)
class Aliases:
    """Rows of (pattern, what it stands for); `*` there is what the pattern's own * took."""

    types: tuple[tuple[re.Pattern[str], str], ...]
    images: tuple[tuple[re.Pattern[str], str], ...]

    def offer(self, name: str) -> str:
        """The offer's name that a type stands for; the name itself where no row fits."""
        return _stands_for(self.types, name)

    def image(self, name: str) -> str:
        """The image's name that another stands for; the name itself where no row fits."""
        return _stands_for(self.images, name)


def wildcard(pattern: str) -> re.Pattern[str]:
    """`*` is anything and `?` one character, as in the clouds' own filters."""
    parts = ("(.*)" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.compile("".join(parts), re.DOTALL)


@cache
def load() -> Aliases:
    """The packaged rows. Raises YardError `catalog_invalid`."""
    values, place = rows.packaged("aliases.toml", "catalog_invalid")
    return parse(values, place)


def parse(values: Mapping[str, Any], place: rows.Place) -> Aliases:
    """The rows of an alias file. Raises YardError `place.code`."""
    rows.only(values, ("type", "image"), place)
    types = [rows.build(_TypeRow, row, at) for row, at in rows.tables(values, "type", place)]
    images = [rows.build(_ImageRow, row, at) for row, at in rows.tables(values, "image", place)]
    return Aliases(
        tuple((wildcard(row.pattern), row.offer) for row in types),
        tuple((wildcard(row.pattern), row.image) for row in images),
    )


def _stands_for(rows_: tuple[tuple[re.Pattern[str], str], ...], name: str) -> str:
    for pattern, meant in rows_:
        if (found := pattern.fullmatch(name)) is not None:
            return found[1] if meant == "*" else meant
    return name
