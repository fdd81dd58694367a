"""What `nvidia-smi topo -m` and `nvidia-smi nvlink -s` print, read into a Topology.

The matrix is made for eyes: it comes with tabs or blanks, with underlines, with its head broken over two lines, its
rows in any order, and with or without affinity columns and a legend of network cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.topology import Link, LinkKind, Nic, Topology, parse_cpu_list

MAX_CHARACTERS: Final = 1 << 20
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CARD = re.compile(r"GPU[0-9]{1,3}")
_DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_LEGEND = re.compile(r"\s+(NIC[0-9]+):\s+(\S+)\s*")
_COLUMNS: Final = {"CPU Affinity": "CPU_AFFINITY", "NUMA Affinity": "NUMA_AFFINITY", "GPU NUMA ID": "GPU_NUMA_ID"}
_STATUS = re.compile(r"GPU ([0-9]+): .*?(?:\(UUID: (\S+)\))?\s*")
_SPEED = re.compile(r"\s+Link ([0-9]+): (?:([0-9]+)(?:\.([0-9]+))? GB/s|<inactive>)\s*")


def parse_matrix(text: str) -> Topology:
    """The topology of `nvidia-smi topo -m`; devices are named GPU0, GPU1, ... in that order.

    Raises YardError `topology_invalid` naming the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise _refuse(0, f"{len(text)} characters", f"<= {MAX_CHARACTERS}")
    lines = list(_lines(text))
    columns, first = _head(lines)
    rows: dict[str, tuple[list[Link], list[str]]] = {}
    legend: dict[str, str] = {}
    for number, line in lines[first:]:
        if (nic := _LEGEND.fullmatch(line)) is not None:
            legend[nic[1]] = nic[2]
            continue
        words = line.split()
        if words and words[0] in columns:
            if words[0] in rows:
                raise _refuse(number, words[0], "a row for each device, once")
            rows[words[0]] = _cells(words, len(columns), number)
    return _assemble(columns, rows, legend)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_ANSI.sub("", text).splitlines(), 1):
        for name, word in _COLUMNS.items():
            line = line.replace(name, word)
        if line.strip() and not line.startswith("#"):
            yield number, line


def _head(lines: list[tuple[int, str]]) -> tuple[list[str], int]:
    """The devices that the head names, and the line after it. The head ends where a row begins: a name and a link."""
    columns: list[str] = []
    for place, (number, line) in enumerate(lines):
        words = line.split()
        if columns and len(words) > 1 and words[0] in columns and Link.parse(words[1]) is not None:
            if len(set(columns)) != len(columns):
                raise _refuse(number, " ".join(columns)[:80], "each device once")
            return columns, place
        if all(_DEVICE.fullmatch(word) for word in words) and _CARD.fullmatch(words[0]):
            columns += [word for word in words if word not in _COLUMNS.values()]
    raise _refuse(lines[-1][0] if lines else 0, "--", "GPU0 GPU1 ... / GPU0 X NV18 ...")


def _cells(words: list[str], devices: int, number: int) -> tuple[list[Link], list[str]]:
    links: list[Link] = []
    for word in words[1:]:
        link = Link.parse(word)
        if link is None or len(links) == devices:
            break
        links.append(link)
    if _CARD.fullmatch(words[0]) and len(links) != devices:
        raise _refuse(number, f"{words[0]}: {len(links)} links", f"{devices} links")
    return links, words[1 + len(links) :]


def _assemble(columns: list[str], rows: dict[str, tuple[list[Link], list[str]]], legend: dict[str, str]) -> Topology:
    cards = sorted((name for name in columns if _CARD.fullmatch(name)), key=lambda name: int(name[3:]))
    if missing := [name for name in cards if name not in rows]:
        raise _refuse(0, ", ".join(missing)[:80], "a row for each card")
    place = {name: columns.index(name) for name in columns}
    for name in cards:
        for other in cards:
            here, there = rows[name][0][place[other]], rows[other][0][place[name]]
            if here != there or (here.kind is LinkKind.SELF) != (name == other):
                raise _refuse(0, f"{name}-{other} {here.text}, {other}-{name} {there.text}", "the same both ways")
    extras = {name: rows[name][1] for name in cards}
    return Topology(
        devices=tuple(cards),
        links=tuple(tuple(rows[name][0][place[other]] for other in cards) for name in cards),
        cpus=tuple(_cpus(extras[name]) for name in cards),
        numa=tuple(_numa(extras[name]) for name in cards),
        nics=tuple(
            Nic(legend.get(name, name), tuple(rows[card][0][place[name]] for card in cards))
            for name in columns
            if name not in cards
        ),
    )


def _cpus(extra: list[str]) -> str | None:
    if not extra:
        return None
    try:
        parse_cpu_list(extra[0])
    except ValueError:
        return None  # N/A
    return extra[0]


def _numa(extra: list[str]) -> int | None:
    """The NUMA node nearest; the first where several are as near (`0-1`)."""
    word = re.match(r"[0-9]+", extra[1]) if len(extra) > 1 else None
    return int(word[0]) if word is not None else None


@dataclass(frozen=True, slots=True)
class NvlinkStatus:
    """A card's links and what each carries one way, megabytes per second; 0 for one that is down. Empty where the card
    has none, or does not say (MIG)."""

    index: int
    uuid: str | None
    links_mbps: tuple[int, ...]

    @property
    def active(self) -> int:
        """How many links are up."""
        return sum(speed > 0 for speed in self.links_mbps)


def parse_nvlink_status(text: str) -> tuple[NvlinkStatus, ...]:
    """What `nvidia-smi nvlink -s` printed. Raises YardError `topology_invalid` where it names no card."""
    found: list[NvlinkStatus] = []
    for line in _ANSI.sub("", text)[:MAX_CHARACTERS].splitlines():
        if (card := _STATUS.fullmatch(line)) is not None:
            found.append(NvlinkStatus(int(card[1]), card[2], ()))
        elif (link := _SPEED.fullmatch(line)) is not None and found:
            speed = int(link[2]) * 1000 + int((link[3] or "0")[:3].ljust(3, "0")) if link[2] else 0
            last = found[-1]
            found[-1] = NvlinkStatus(last.index, last.uuid, (*last.links_mbps, speed))
    if not found:
        raise _refuse(0, text[:40].strip() or "--", "GPU 0: ... / Link 0: ... GB/s")
    return tuple(found)


def _refuse(line: int, found: str, expected: str) -> YardError:
    return YardError("topology_invalid", line=line, found=found, expected=expected)
