"""Price books one after the other: which one was in force when. A new version never touches what was granted before.

A file is either one book, which holds for ever, or `[[version]]` tables with `effective_from`. Versions follow each
other without a gap; one may say its own `effective_until`, which then has to be where the next one begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from gpuyard.catalog import rows
from gpuyard.catalog.prices import CODE, PriceBook, parse
from gpuyard.model.errors import YardError
from gpuyard.model.times import from_text, to_text

_DATED: Final = ("effective_from", "effective_until")


@dataclass(frozen=True, slots=True)
class PriceHistory:
    """Versions by when they begin. The last one holds until another is written."""

    books: tuple[PriceBook, ...]

    @property
    def currency(self) -> str:
        """The one currency of all versions."""
        return self.books[0].currency

    def at(self, moment_us: int) -> PriceBook:
        """The book in force. Raises YardError `price_not_yet` for a moment before the first one begins."""
        found = self.known_at(moment_us)
        if found is None:
            first = self.books[0].effective_from_us or 0
            raise YardError("price_not_yet", moment=to_text(moment_us), first=to_text(first))
        return found

    def known_at(self, moment_us: int) -> PriceBook | None:
        """The book in force; None for a moment before the first one begins."""
        number = bisect_right([book.effective_from_us or 0 for book in self.books], moment_us)
        return self.books[number - 1] if number else None

    def next_change_us(self, after_us: int) -> int | None:
        """When the next version begins, if one is written down."""
        begins = (book.effective_from_us or 0 for book in self.books)
        return min((moment for moment in begins if moment > after_us), default=None)


def load(path: Path | None = None) -> PriceHistory:
    """The operator's price books, or the packaged example. Raises YardError `price_book_invalid`."""
    values, place = rows.packaged("prices.toml", CODE) if path is None else rows.read(path, CODE)
    return parse_history(values, place)


def parse_history(values: Mapping[str, Any], place: rows.Place) -> PriceHistory:
    """Raises YardError `price_book_invalid`, for a gap, an overlap or a second currency too."""
    if "version" not in values:
        return PriceHistory((parse(values, place),))
    rows.only(values, ("currency", "version"), place)
    dated = sorted(
        (_dated({**_currency(values), **row}, at) for row, at in rows.tables(values, "version", place)),
        key=lambda found: found[0].effective_from_us or 0,
    )
    for (book, until_us, at), (following, _, _) in pairwise(dated):
        _must_meet(book, until_us, following, at)
    last = dated[-1]
    if last[1] is not None:
        raise last[2].refuse("effective_until", to_text(last[1]), rows.ABSENT)
    return PriceHistory(tuple(book for book, _, _ in dated))


def _currency(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"currency": values["currency"]} if "currency" in values else {}


def _dated(values: Mapping[str, Any], at: rows.Place) -> tuple[PriceBook, int | None, rows.Place]:
    book = parse({key: value for key, value in values.items() if key not in _DATED}, at)
    from_us, until_us = (_moment(values, key, at) for key in _DATED)
    if from_us is None:
        raise at.refuse("effective_from", rows.ABSENT, '"2026-12-01"')
    if until_us is not None and until_us <= from_us:
        raise at.refuse("effective_until", values["effective_until"], f"> {to_text(from_us)}")
    return replace(book, effective_from_us=from_us, version=to_text(from_us)), until_us, at


def _moment(values: Mapping[str, Any], key: str, at: rows.Place) -> int | None:
    text = values.get(key)
    if text is None:
        return None
    if isinstance(text, str):
        try:
            return from_text(f"{text}T00:00:00Z" if len(text) == 10 else text)
        except YardError:
            pass
    raise at.refuse(key, text, '"2026-12-01" | "2026-12-01T08:00:00Z"')


def _must_meet(book: PriceBook, until_us: int | None, following: PriceBook, at: rows.Place) -> None:
    """Raises the refusal of a gap, an overlap or another currency."""
    begins = following.effective_from_us or 0
    if begins == book.effective_from_us:
        raise at.refuse("effective_from", to_text(begins), "unique")
    if until_us is not None and until_us != begins:  # earlier: nothing would hold in between; later: both would
        raise at.refuse("effective_until", to_text(until_us), f'"{to_text(begins)}"')
    if following.currency != book.currency:
        raise at.refuse("currency", following.currency, book.currency)
