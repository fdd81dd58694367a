"""The one strict loader: a table of a TOML file becomes a frozen dataclass, or is refused naming file, row and field.

A field without a default must be there; one that the dataclass does not have is refused, so that a misspelt name is not
silently ignored. Integers are at least `minimum` (1, unless the field says otherwise in its metadata).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gpuyard.model.errors import YardError

T = TypeVar("T")

MAX_FILE_BYTES = 8 << 20

ABSENT = "--"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file something stands, and the error code under which that file is refused."""

    code: str
    file: str
    row: str = "(root)"

    def at(self, row: str) -> Place:
        """The same file, at this row."""
        return Place(self.code, self.file, row)

    def refuse(self, field: str, found: object, expected: str) -> YardError:
        """The refusal: what stands where, and what should. `expected` is notation, not prose, as it is shown in every
        language."""
        shown = found if found == ABSENT else repr(found)
        return YardError(
            self.code, file=self.file, where=self.row, field=field, found=str(shown)[:120], expected=expected
        )


def packaged(name: str, code: str) -> tuple[Mapping[str, Any], Place]:
    """A file of `gpuyard.catalog.data`, parsed, and its place."""
    place = Place(code, name)
    return parse(files("gpuyard.catalog").joinpath("data", name).read_bytes(), place), place


def read(path: Path, code: str) -> tuple[Mapping[str, Any], Place]:
    """A file of the operator's, parsed, and its place. Raises YardError `code` where it cannot be read or parsed."""
    place = Place(code, str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise place.refuse("file", error.strerror or str(error), "readable") from None
    if len(content) > MAX_FILE_BYTES:
        raise place.refuse("file", len(content), f"<= {MAX_FILE_BYTES} bytes")
    return parse(content, place), place


def parse(content: bytes, place: Place) -> Mapping[str, Any]:
    """TOML from bytes. Raises YardError `place.code`."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise place.refuse("file", f"byte {error.start}", "UTF-8") from None
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError, tomllib lets through what Python says of integers with absurdly many digits and of
        # tables nested absurdly deep.
        raise place.refuse("TOML", str(error), "TOML 1.0") from None


def only(values: Mapping[str, Any], known: tuple[str, ...], place: Place) -> None:
    """Raises YardError `place.code` for a key that is not `known`."""
    for key in values:
        if key not in known:
            raise place.refuse("key", str(key), " | ".join(known))


def tables(values: Mapping[str, Any], key: str, place: Place) -> list[tuple[Mapping[str, Any], Place]]:
    """The rows of `[[key]]`, each with its place, counted from 1. Raises YardError `place.code` where none is."""
    rows = values.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise place.refuse(key, ABSENT if rows is None else rows, f"[[{key}]]")
    return [(row, place.at(_title(key, number, row))) for number, row in enumerate(rows, 1)]


def build(kind: type[T], values: Mapping[str, Any], place: Place) -> T:
    """`kind(**values)` after checking every name and type. Raises YardError `place.code`."""
    expectations = _expectations(kind)
    only(values, tuple(expectations), place)
    arguments: dict[str, Any] = {}
    for name, expectation in expectations.items():
        if name in values:
            arguments[name] = expectation.check(name, values[name], place)
        elif expectation.required:
            raise place.refuse(name, ABSENT, expectation.expected)
    return kind(**arguments)


def _title(key: str, number: int, row: Mapping[str, Any]) -> str:
    name = row.get("name")
    return f"{key} {number} ({name[:40]})" if isinstance(name, str) and name else f"{key} {number}"


@dataclass(frozen=True, slots=True)
class _Expectation:
    kind: type
    element: type  # of a list
    required: bool
    minimum: int

    @property
    def expected(self) -> str:
        if self.kind is int:
            return f"integer >= {self.minimum}"
        if self.kind is tuple:
            return '["text", ...]' if self.element is str else "[1, ...]"
        return '"text"' if self.kind is str else "true | false"

    def check(self, name: str, value: Any, place: Place) -> Any:
        right = type(value) is (list if self.kind is tuple else self.kind)
        if right and self.kind is int:
            right = self.minimum <= value < 1 << 63
        elif right and self.kind is str:
            right = bool(value.strip())
        elif right and self.kind is tuple:
            right = all(type(item) is self.element and item for item in value)
        if not right:
            raise place.refuse(name, value, self.expected)
        return tuple(value) if self.kind is tuple else value


@cache
def _expectations(kind: type[Any]) -> Mapping[str, _Expectation]:
    hints = get_type_hints(kind)
    return {
        field.name: _Expectation(
            *_plain(hints[field.name]),
            required=field.default is MISSING and field.default_factory is MISSING,
            minimum=field.metadata.get("minimum", 1),
        )
        for field in fields(kind)
    }


def _plain(hint: Any) -> tuple[type, type]:
    """(str, str) of `str` and `str | None`, (tuple, int) of `tuple[int, ...]`."""
    element = get_args(hint)[0] if get_args(hint) else hint
    return (tuple if get_origin(hint) is tuple else element), element
