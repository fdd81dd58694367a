"""What `amd-smi topology` (text) and `rocm-smi --showtopo --json` print, read into a Topology."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.model.topology import Link, LinkKind, Topology

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)
_TABLE = re.compile(r"([A-Z][A-Z -]*) TABLE:")
_SAME_NODE_HOPS: Final = 2  # card - processor - card; a third hop is the link between two sockets
_UNKNOWN = Link(LinkKind.UNKNOWN)
_SELF = Link(LinkKind.SELF)


def parse_amd_smi(text: str) -> Topology:
    """The topology of `amd-smi topology`; devices are PCI addresses. Where the output has no table of link types, the
    links are of class UNKNOWN.

    Raises YardError `topology_invalid`.
    """
    tables = _tables(text)
    if not tables:
        raise YardError("topology_invalid", line=0, found=text[:40].strip() or "--", expected="LINK TYPE TABLE:")
    devices = tuple(next(iter(tables.values())))
    kinds, hops = tables.get("LINK TYPE", {}), tables.get("HOPS", {})
    links = tuple(
        tuple(_link(place == other, _cell(kinds, a, other), _cell(hops, a, other)) for other in range(len(devices)))
        for place, a in enumerate(devices)
    )
    return _topology(devices, links, (None,) * len(devices))


def _tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Table name -> device -> its cells. Raises YardError `topology_invalid` for rows of another length."""
    found: dict[str, dict[str, list[str]]] = {}
    table: dict[str, list[str]] | None = None
    width = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if (title := _TABLE.fullmatch(line.strip())) is not None:
            table, width = found.setdefault(title[1], {}), 0
        elif table is not None and words and _ADDRESS.fullmatch(words[0]):
            if all(_ADDRESS.fullmatch(word) for word in words) and not width:
                width = len(words)
                continue
            if len(words) != width + 1:
                raise YardError(
                    "topology_invalid", line=number, found=f"{len(words) - 1} cells", expected=f"{width} cells"
                )
            table[words[0].lower()] = words[1:]
    return {name: rows for name, rows in found.items() if rows}


def _cell(table: dict[str, list[str]], device: str, other: int) -> str | None:
    row = table.get(device)
    return row[other] if row is not None and other < len(row) else None


def _link(same: bool, kind: str | None, hops: str | None) -> Link:
    if same:
        return _SELF
    if kind == "XGMI":
        return Link(LinkKind.XGMI)
    if kind in {"PCIE", "PCIe"} and hops is not None and hops.isdecimal():
        return Link(LinkKind.NODE if int(hops) <= _SAME_NODE_HOPS else LinkKind.SYS)
    return _UNKNOWN


def parse_rocm_smi(text: str) -> Topology:
    """The topology in `rocm-smi --json`; devices are PCI addresses, or card0, card1, ... where it names none.

    Raises YardError `topology_invalid`.
    """
    try:
        values: Any = json.loads(text)
        names = sorted((name for name in values if re.fullmatch("card[0-9]+", name)), key=lambda name: int(name[4:]))
        system: dict[str, str] = values.get("system", {})
        devices = tuple(str(values[name].get("PCI Bus", name)).lower() for name in names)
        numa = tuple(_numa(values[name].get("(Topology) Numa Node")) for name in names)
    except (ValueError, TypeError, AttributeError) as error:
        raise YardError("topology_invalid", line=0, found=str(error)[:80], expected='{"card0": {...}}') from None
    if not names:
        raise YardError("topology_invalid", line=0, found="--", expected='{"card0": {...}}')
    links = tuple(tuple(_between(system, int(a[4:]), int(b[4:])) for b in names) for a in names)
    return _topology(devices, links, numa)


def _between(system: dict[str, str], a: int, b: int) -> Link:
    pair = f"between DRM devices {min(a, b)} and {max(a, b)}"
    return _link(a == b, system.get(f"(Topology) Link type {pair}"), system.get(f"(Topology) Hops {pair}"))


def _numa(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() else None


def _topology(devices: tuple[str, ...], links: tuple[tuple[Link, ...], ...], numa: tuple[int | None, ...]) -> Topology:
    return Topology(devices=devices, links=links, cpus=(None,) * len(devices), numa=numa)
