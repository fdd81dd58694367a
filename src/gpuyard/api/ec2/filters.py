"""The filters that Describe actions take: all of them must hold, and of each one's values any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gpuyard.api.asking import decode_cursor, encode_cursor
from gpuyard.api.dialects.faults import Fault
from gpuyard.catalog.aliases import wildcard
from gpuyard.model.errors import YardError

Row = dict[str, Any]
T = TypeVar("T")
Values = Callable[[Row], Iterable[object]]


def tags(row: Row) -> list[dict[str, str]]:
    return row.get("Tags", [])


def field(*names: str) -> Values:
    """The value at a path of a row."""

    def values(row: Row) -> Iterable[object]:
        at: Any = row
        for name in names:
            at = at.get(name) if isinstance(at, dict) else None
        return () if at is None else (at,)

    return values


def keep(rows: Sequence[Row], asked: Mapping[str, Any], known: Mapping[str, Values]) -> list[Row]:
    """The rows that pass `Filters`.

    Raises Fault for a filter that there is not.
    """
    for one in asked.get("Filters", []):
        name, values = one.get("Name", ""), one.get("Values", [])
        found = _values(name, known)
        patterns = [wildcard(value) for value in values]
        rows = [row for row in rows if any(p.fullmatch(_text(v)) for v in found(row) for p in patterns)]
    return list(rows)


def _values(name: str, known: Mapping[str, Values]) -> Values:
    if name.startswith("tag:"):
        return lambda row: [tag["Value"] for tag in tags(row) if tag["Key"] == name[4:]]
    if name == "tag-key":
        return lambda row: [tag["Key"] for tag in tags(row)]
    if name not in known:
        raise Fault("InvalidParameterValue", f"The filter '{name[:100]}' is invalid; known: {', '.join(sorted(known))}")
    return known[name]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def page(rows: Sequence[T], asked: Mapping[str, Any], of: str) -> tuple[list[T], str | None]:
    """One page of what there is, and the token of the next.

    Raises Fault for a token that is not of this list.
    """
    most = asked.get("MaxResults", 1000)
    if not 1 <= most <= 1000:
        raise Fault("InvalidParameterValue", "MaxResults must be 1 to 1000.")
    try:
        cursor = decode_cursor(asked.get("NextToken") or None, of, 1)
    except YardError:
        cursor = ["?"]
    start = 0 if cursor is None else int(cursor[0]) if cursor[0].isascii() and cursor[0].isdecimal() else -1
    if not 0 <= start <= len(rows):
        raise Fault("InvalidNextToken", "The token of the page is not one of this list.")
    end = start + most
    return list(rows[start:end]), encode_cursor(of, end) if end < len(rows) else None
