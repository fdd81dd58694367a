"""The structures that C and Python share, read from one file: offsets for Python, a header for C."""

from __future__ import annotations

import re
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

NATIVE: Final = Path(__file__).parent / "native"
_SCALARS: Final = {"u32": ("I", 4, "uint32_t"), "u64": ("Q", 8, "uint64_t"), "i64": ("q", 8, "int64_t")}
_TYPE: Final = re.compile(r"(\w+)(?:\[(\w+)\])?")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies: `offset` bytes in, `count` elements of `kind`, `stride` bytes apart."""

    name: str
    kind: str
    offset: int
    count: int
    stride: int


@dataclass(frozen=True, slots=True)
class Struct:
    """One shared structure. Values are read and written in place in a buffer that starts with it, or at `base`."""

    name: str
    doc: str
    size: int
    alignment: int
    fields: Mapping[str, Field]

    def at(self, name: str, index: int = 0, base: int = 0) -> int:
        """The offset of an element of a field. Raises KeyError and IndexError for what is not there."""
        field = self.fields[name]
        if not 0 <= index < field.count:
            raise IndexError(f"{self.name}.{name}[{index}]")
        return base + field.offset + index * field.stride

    def read(self, buffer: Any, name: str, index: int = 0, base: int = 0) -> Any:
        """A number, or the bytes or text of a whole field."""
        field = self.fields[name]
        if field.kind in _SCALARS:
            return struct.unpack_from("<" + _SCALARS[field.kind][0], buffer, self.at(name, index, base))[0]
        raw = bytes(buffer[base + field.offset : base + field.offset + field.count])
        return raw if field.kind == "bytes" else raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    def write(self, buffer: Any, name: str, value: int | bytes | str, index: int = 0, base: int = 0) -> None:
        """Raises struct.error for a number out of range and ValueError for a text that does not fit."""
        field = self.fields[name]
        if field.kind in _SCALARS:
            struct.pack_into("<" + _SCALARS[field.kind][0], buffer, self.at(name, index, base), value)
            return
        raw = value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[arg-type]
        room = field.count - (field.kind == "char")
        if len(raw) > room or (field.kind == "char" and b"\0" in raw):
            raise ValueError(f"{self.name}.{name} takes {room} bytes without a zero byte, and was given {len(raw)}")
        start = base + field.offset
        buffer[start : start + field.count] = raw.ljust(field.count, b"\0")


@dataclass(frozen=True, slots=True)
class Layout:
    """All shared constants and structures."""

    constants: Mapping[str, int]
    structs: Mapping[str, Struct]

    def header(self) -> str:
        """The same, as a C header whose assertions hold the compiler to the offsets that Python uses."""
        lines = ["/* Generated from layout.toml. */", "#pragma once", "#include <stddef.h>", "#include <stdint.h>", ""]
        lines += [
            f"#define GY_{name} {value}{'ull' if value > 0xFFFFFFFF else 'u'}" for name, value in self.constants.items()
        ]
        for shape in self.structs.values():
            lines += ["", f"/* {shape.doc} */", f"struct gy_{shape.name} {{"]
            lines += [f"    {_c_type(f)} {f.name}{_c_count(f)};" for f in shape.fields.values()]
            lines += ["};"]
            lines += [f'_Static_assert(sizeof(struct gy_{shape.name}) == {shape.size}, "size of {shape.name}");']
            lines += [
                f'_Static_assert(offsetof(struct gy_{shape.name}, {f.name}) == {f.offset}, "{shape.name}.{f.name}");'
                for f in shape.fields.values()
            ]
        return "\n".join(lines) + "\n"


@cache
def layout() -> Layout:
    """The layout of this version. Raises ValueError where the file places a field off its alignment."""
    document = tomllib.loads((NATIVE / "layout.toml").read_text(encoding="utf-8"))
    constants: dict[str, int] = document["constants"]
    structs: dict[str, Struct] = {}
    for entry in document["struct"]:
        structs[entry["name"]] = _placed(entry, constants, structs)
    return Layout(constants, structs)


def _placed(entry: Mapping[str, Any], constants: Mapping[str, int], known: Mapping[str, Struct]) -> Struct:
    fields: dict[str, Field] = {}
    end, widest = 0, 1
    for name, text in entry["fields"]:
        match = _TYPE.fullmatch(text)
        if match is None:
            raise ValueError(f"layout.toml: {entry['name']}.{name} has no type {text!r}")
        kind, number = match.groups()
        count = 1 if number is None else constants.get(number) or int(number)
        size, alignment = _extent(kind, known)
        if end % alignment:
            raise ValueError(f"layout.toml: {entry['name']}.{name} lies at {end}, which is no multiple of {alignment}")
        fields[name] = Field(name, kind, end, count, size)
        end += size * count
        widest = max(widest, alignment)
    if end % widest:
        raise ValueError(f"layout.toml: {entry['name']} ends at {end}, which is no multiple of {widest}")
    return Struct(entry["name"], entry["doc"], end, widest, fields)


def _extent(kind: str, known: Mapping[str, Struct]) -> tuple[int, int]:
    if kind in _SCALARS:
        size = _SCALARS[kind][1]
        return size, size
    if kind in ("char", "bytes"):
        return 1, 8 if kind == "bytes" else 1
    return known[kind].size, known[kind].alignment


def _c_type(field: Field) -> str:
    if field.kind in _SCALARS:
        return _SCALARS[field.kind][2]
    return {"char": "char", "bytes": "_Alignas(8) uint8_t"}.get(field.kind, f"struct gy_{field.kind}")


def _c_count(field: Field) -> str:
    return f"[{field.count}]" if field.count > 1 or field.kind in ("char", "bytes") else ""
