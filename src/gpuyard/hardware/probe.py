"""The protocol that every probe implements, and what a probe reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gpuyard.model.fleet import Node


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for: `ok` True found, False missing, None could not be told."""

    name: str  # a text key below "doctor.", e.g. nvml
    ok: bool | None
    params: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The nodes and cards that are here now, and how they were found."""

    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...] = ()


class Probe(Protocol):
    """Finds nodes and cards. Called again and again: a card that is gone is simply not in the next report.

    Probing never raises for hardware that is absent or broken: that is a Finding.
    """

    name: str  # nvidia, simulated

    def probe(self) -> ProbeReport:
        """What is here now."""
        ...
