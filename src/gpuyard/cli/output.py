"""How things are shown: tables for people, JSON for programs, sentences on standard error."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from gpuyard.model.errors import YardError
from gpuyard.texts import error_text, language_of_environment, text

ABSENT = "--"


def t(key: str, **params: object) -> str:
    """A sentence of the command line in the user's language."""
    return text(f"cli.{key}", language_of_environment(), **params)


def say(sentence: str) -> None:
    """A message to the person, beside the output."""
    print(sentence, file=sys.stderr, flush=True)


def show_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show_error(error: YardError) -> None:
    """One sentence and the stable code; the yard's own sentence where it said one."""
    detail = getattr(error, "detail", None) or error_text(error.code, language_of_environment(), error.params)
    say(f"gpuyard: {detail} [{error.code}]")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table: by Rich on a terminal, plain aligned columns elsewhere."""
    shown = [[ABSENT if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in shown:
            table.add_row(*row)
        Console().print(table)
        return
    lines = [list(columns), *(line for row in shown for line in _lines(row))]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = (cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _lines(row: Sequence[str]) -> list[list[str]]:
    """A row as lines: a cell of several lines goes on below itself."""
    parts = [cell.split("\n") for cell in row]
    height = max(map(len, parts))
    return [[part[n] if n < len(part) else "" for part in parts] for n in range(height)]


def width(cell: str) -> int:
    """Terminal columns: a wide character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in cell)


def size(size_bytes: int) -> str:
    """A size as one would say it: `12.0GiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def share(share_ppm: int) -> str:
    """A share of a card: `25%`."""
    return f"{share_ppm / 10_000:g}%"


def cpus(cpu_milli: int) -> str:
    """Cores: `2`, `0.5`."""
    return f"{cpu_milli / 1000:g}"


def age(moment: str) -> str:
    """How long ago, in one unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for limit, unit, length in ((120, "s", 1), (7200, "m", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(0, int(seconds // length))}{unit}"
    return f"{int(seconds // 86400)}d"
