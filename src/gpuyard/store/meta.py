"""Small facts about the yard itself, by key."""

from __future__ import annotations

from sqlalchemy import Connection, text

_GET = text("SELECT value FROM meta WHERE key = :key")
_PUT = text(
    "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


def get(c: Connection, key: str) -> str | None:
    """The value, if it was ever put."""
    return c.execute(_GET, {"key": key}).scalar()


def put(c: Connection, key: str, value: str) -> None:
    """Sets the value."""
    c.execute(_PUT, {"key": key, "value": value})
