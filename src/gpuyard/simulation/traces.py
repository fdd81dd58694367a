"""Node and pod lists as they are published, read with every mistake named by row and column.

Nodes: openb CSV (`sn,cpu_milli,memory_mib,gpu,model`) or TOML (`[[nodes]]`). Pods: openb CSV (`name,cpu_milli,
memory_mib,num_gpu,gpu_milli[,gpu_spec,creation_time,deletion_time]`), the reduced Philly CSV (`timestamp,duration,
num_gpus`) or TOML (`[[pods]]`). TOML has the names of the openb columns; `gpu_memory_mib` may be given in each.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gpuyard.model.errors import YardError

MIB: Final = 1 << 20
_MOST: Final = 10**12
_PHILLY_CPU_MILLI: Final = 4_000  # that trace tells of cards only
_PHILLY_MEMORY_BYTES: Final = 16 << 30


@dataclass(frozen=True, slots=True)
class TraceNode:
    """A server of a node list."""

    name: str
    cpu_milli: int
    memory_bytes: int
    cards: int
    model: str
    card_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TracePod:
    """A request of a pod list. `models` empty: any. Times in seconds from the trace's start, None where it has none."""

    name: str
    cpu_milli: int
    memory_bytes: int
    cards: int
    share_ppm: int
    models: tuple[str, ...] = ()
    card_memory_bytes: int = 0
    created_s: int | None = None
    lasts_s: int | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One row, and where it is: what is asked of it fails with that."""

    file: str
    where: str
    values: Mapping[str, Any]

    def bad(self, column: str, expected: str) -> YardError:
        found = self.values.get(column, "")
        return YardError(
            "trace_invalid", file=self.file, where=self.where, column=column, found=repr(found), expected=expected
        )

    def text(self, column: str) -> str:
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(column, "a name")
        return value.strip()

    def number(self, column: str, least: int = 0, most: int = _MOST, default: int | None = None) -> int:
        value = self.values.get(column)
        if default is not None and value in (None, ""):
            return default
        try:
            number = float(str(value))
            if not (least <= number <= most) or number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.bad(column, f"a whole number from {least} to {most}") from None
        return int(number)

    def whole(self, column: str, default: int) -> int:
        """A column that other programs write with a fraction."""
        value = self.values.get(column)
        if value in (None, ""):
            return default
        try:
            number = float(str(value))
            if not 0 <= number <= _MOST:
                raise ValueError
        except ValueError:
            raise self.bad(column, f"a number from 0 to {_MOST}") from None
        return int(number)


def _rows(path: Path, table: str) -> tuple[list[str], Iterator[_Row]]:
    """The columns and the rows of a CSV or TOML file. Raises YardError `trace_invalid`."""
    try:
        if path.suffix == ".toml":
            with path.open("rb") as file:
                found = tomllib.load(file).get(table)
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise YardError("trace_invalid", file=str(path), where="--", column=f"[[{table}]]", found="nothing",
                                expected=f"tables named [[{table}]]")  # fmt: skip
            columns = sorted({key for row in found for key in row})
            return columns, (_Row(str(path), f"[[{table}]] {at}", row) for at, row in enumerate(found, 1))
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise YardError("invalid_request", reason=f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise YardError(
            "trace_invalid", file=str(path), where="--", column="--", found=str(error), expected="UTF-8 CSV or TOML"
        ) from error
    reader = csv.DictReader(text.splitlines())
    columns = list(reader.fieldnames or ())
    return columns, (_csv_row(path, reader.line_num, columns, row) for row in reader)


def _csv_row(path: Path, line: int, columns: list[str], row: dict[Any, Any]) -> _Row:
    made = _Row(str(path), f"row {line}", row)
    if None in row or None in row.values():
        raise YardError("trace_invalid", file=str(path), where=f"row {line}", column="--",
                        found=f"{sum(value is not None for value in row.values())} fields",
                        expected=f"{len(columns)} fields")  # fmt: skip
    return made


def _demand_columns(path: Path, columns: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise YardError("trace_invalid", file=str(path), where="the header", column=missing[0],
                        found=", ".join(columns) or "nothing", expected=f"the columns {', '.join(needed)}")  # fmt: skip


def _once(names: dict[str, str], row: _Row, column: str) -> str:
    name = row.text(column)
    if name in names:
        raise row.bad(column, f"a name of its own ({names[name]} has this one)")
    names[name] = row.where
    return name


def read_nodes(path: Path) -> list[TraceNode]:
    """The servers. Raises YardError `trace_invalid` with row and column."""
    columns, rows = _rows(path, "nodes")
    _demand_columns(path, columns, ("sn", "cpu_milli", "memory_mib", "gpu"))
    names: dict[str, str] = {}
    nodes: list[TraceNode] = []
    for row in rows:
        cards = row.number("gpu", most=32)
        nodes.append(
            TraceNode(
                _once(names, row, "sn"),
                row.number("cpu_milli"),
                row.number("memory_mib") * MIB,
                cards,
                row.text("model") if cards else "",
                row.number("gpu_memory_mib", default=0) * MIB,
            )
        )
    if not nodes:
        raise YardError("trace_invalid", file=str(path), where="--", column="sn", found="nothing", expected="a node")
    return nodes


def read_pods(path: Path, nodes: list[TraceNode]) -> list[TracePod]:
    """The requests. Raises YardError `trace_invalid` with row and column, for models that no node has too."""
    columns, rows = _rows(path, "pods")
    philly = "num_gpus" in columns
    needed = ("timestamp", "duration", "num_gpus") if philly else ("name", "cpu_milli", "memory_mib", "num_gpu")
    _demand_columns(path, columns, needed)
    pods = _philly(rows) if philly else _openb(rows, {node.model for node in nodes if node.cards})
    if not pods:
        raise YardError("trace_invalid", file=str(path), where="--", column=needed[0], found="nothing",
                        expected="a request")  # fmt: skip
    return pods


def _openb(rows: Iterator[_Row], known: set[str]) -> list[TracePod]:
    names: dict[str, str] = {}
    pods: list[TracePod] = []
    for row in rows:
        cards = row.number("num_gpu", most=32)
        milli = row.number("gpu_milli", 1 if cards else 0, 1000, default=0 if not cards else None)
        models = tuple(filter(None, str(row.values.get("gpu_spec") or "").split("|")))
        if unknown := set(models) - known:
            raise row.bad("gpu_spec", f"models of the node list ({', '.join(sorted(known))}), not {min(unknown)}")
        created, deleted = row.whole("creation_time", -1), row.whole("deletion_time", -1)
        if deleted >= 0 and deleted < created:
            raise row.bad("deletion_time", "a time not before creation_time")
        pods.append(
            TracePod(
                _once(names, row, "name"),
                row.number("cpu_milli"),
                row.number("memory_mib") * MIB,
                cards,
                milli * 1000 if cards else 0,
                models,
                row.number("gpu_memory_mib", default=0) * MIB,
                created if created >= 0 else None,
                deleted - created if created >= 0 and deleted >= 0 else None,
            )
        )
    return pods


def _philly(rows: Iterator[_Row]) -> list[TracePod]:
    """Jobs of whole cards. More than eight are a gang of nodes of eight, which one pod each stands for."""
    pods: list[TracePod] = []
    first: datetime | None = None
    for at, row in enumerate(rows):
        try:
            when = datetime.fromisoformat(row.text("timestamp"))
        except ValueError:
            raise row.bad("timestamp", "a time such as 2017-10-09 07:01:55") from None
        first = min(first or when, when)
        cards, lasts = row.number("num_gpus", 1, 4096), row.whole("duration", 0)
        for part in range(-(-cards // 8)):
            own = min(8, cards - 8 * part)
            name = f"philly-{at}" if cards <= 8 else f"philly-{at}-{part}"
            pods.append(
                TracePod(
                    name, own * _PHILLY_CPU_MILLI, own * _PHILLY_MEMORY_BYTES, own, 1_000_000,
                    created_s=int(when.timestamp()), lasts_s=lasts,
                )
            )  # fmt: skip
    return pods
