"""How the cards of a node hang together: links between pairs, NUMA nodes, processors and network cards near them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Final


class LinkKind(StrEnum):
    """What a transfer between two devices crosses, nearest first."""

    SELF = "X"
    NVLINK = "NV"  # with the number of bonded links
    XGMI = "XGMI"
    PIX = "PIX"  # one PCIe switch
    PXB = "PXB"  # several PCIe switches
    PHB = "PHB"  # a PCIe host bridge
    NODE = "NODE"  # several host bridges of one NUMA node
    SYS = "SYS"  # the link between sockets
    UNKNOWN = "?"


_DISTANCE: Final[dict[LinkKind, int]] = {
    LinkKind.SELF: 0,
    LinkKind.NVLINK: 100,  # less one for each bonded link
    LinkKind.XGMI: 100,
    LinkKind.PIX: 200,
    LinkKind.PXB: 300,
    LinkKind.PHB: 400,
    LinkKind.NODE: 500,
    LinkKind.SYS: 600,
    LinkKind.UNKNOWN: 700,
}
_TEXT = re.compile(r"(?:NV([0-9]{1,2})|X|XGMI|PIX|PXB|PHB|NODE|SYS|\?)")
_FAST: Final = frozenset({LinkKind.SELF, LinkKind.NVLINK, LinkKind.XGMI})


@dataclass(frozen=True, slots=True)
class Link:
    """A link's class and, for NVLink, how many links are bonded."""

    kind: LinkKind
    lanes: int = 0

    @classmethod
    def parse(cls, text: str) -> Link | None:
        """`NV18`, `PIX`, ...; None for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        return _link(LinkKind.NVLINK, int(match[1])) if match[1] else _link(LinkKind(text), 0)

    @property
    def text(self) -> str:
        """As `nvidia-smi topo -m` writes it."""
        return f"NV{self.lanes}" if self.kind is LinkKind.NVLINK else self.kind.value

    @property
    def distance(self) -> int:
        """Smaller is nearer; a count of nothing, made only to be compared and added up."""
        return _DISTANCE[self.kind] - min(self.lanes, 50)

    @property
    def fast(self) -> bool:
        """Whether cards talk over it without PCIe."""
        return self.kind in _FAST


@cache
def _link(kind: LinkKind, lanes: int) -> Link:
    return Link(kind, lanes)


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card and its link to each device, in the topology's order."""

    name: str
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """The devices of a node and what is between each two. What was not told is None, or a link of class UNKNOWN."""

    devices: tuple[str, ...]  # PCI addresses where they are known, else GPU0, GPU1, ... in PCI order
    links: tuple[tuple[Link, ...], ...]
    cpus: tuple[str | None, ...]  # a Linux CPU list (`0-19,40-59`) per device
    numa: tuple[int | None, ...]
    nics: tuple[Nic, ...] = ()

    def named(self, names: Sequence[str]) -> Topology:
        """The same under other names, given in the same order. Raises ValueError where there are not as many."""
        if len(names) != len(self.devices):
            raise ValueError(f"{len(self.devices)} devices, {len(names)} names")
        return replace(self, devices=tuple(names))

    def index(self) -> dict[str, int]:
        """Each device's place."""
        return {device: place for place, device in enumerate(self.devices)}

    def islands(self) -> tuple[tuple[int, ...], ...]:
        """Sets of devices joined without PCIe, directly or over one another; a device alone is an island."""
        left = dict.fromkeys(range(len(self.devices)))
        found: list[tuple[int, ...]] = []
        while left:
            reached = [next(iter(left))]
            del left[reached[0]]
            for device in reached:  # grows while it is walked
                for other in [other for other in left if self.links[device][other].fast]:
                    reached.append(other)
                    del left[other]
            found.append(tuple(sorted(reached)))
        return tuple(found)

    def to_json(self) -> str:
        """Compact and stable, for the store."""
        values = {
            "devices": self.devices,
            "links": [" ".join(link.text for link in row) for row in self.links],
            "cpus": self.cpus,
            "numa": self.numa,
            "nics": {nic.name: " ".join(link.text for link in nic.links) for nic in self.nics},
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Topology:
        """What `to_json` wrote. Raises ValueError for anything else."""
        values = json.loads(text)
        return cls(
            devices=tuple(values["devices"]),
            links=tuple(_row(row) for row in values["links"]),
            cpus=tuple(values["cpus"]),
            numa=tuple(values["numa"]),
            nics=tuple(Nic(name, _row(row)) for name, row in values["nics"].items()),
        )


def _row(text: str) -> tuple[Link, ...]:
    found = tuple(Link.parse(word) for word in text.split())
    if None in found:
        raise ValueError(f"not links: {text[:80]}")
    return tuple(link for link in found if link is not None)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The processors of a Linux CPU list such as `0-19,40`. Raises ValueError for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < 1 << 20:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return frozenset(found)


def format_cpu_list(cpus: frozenset[int]) -> str:
    """The shortest CPU list of these processors."""
    parts: list[str] = []
    ordered = sorted(cpus)
    start = 0
    for place, cpu in enumerate(ordered):
        if place + 1 == len(ordered) or ordered[place + 1] != cpu + 1:
            first = ordered[start]
            parts.append(str(first) if first == cpu else f"{first}-{cpu}")
            start = place + 1
    return ",".join(parts)
