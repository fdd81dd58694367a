"""Answers as JSON bytes, made by pydantic's serialiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import to_json
from starlette.responses import Response


def json_bytes(value: object) -> bytes:
    """Compact JSON of plain values."""
    return to_json(value)


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(to_json(value), status, dict(headers or {}), "application/json")


def page(items: Sequence[object], next_cursor: str | None) -> Response:
    """A page of a list."""
    return Response(page_bytes(items, next_cursor), media_type="application/json")


def page_bytes(items: Sequence[object], next_cursor: str | None) -> bytes:
    """The body of a page."""
    return to_json({"items": items, "next": next_cursor})
