"""What a machine tells a yard that it joined: its cards, what each of them can guarantee, and what its doctor finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from gpuyard.cli.host import DoctorReport, UpOptions
from gpuyard.hardware.probe import Probe
from gpuyard.hardware.simulated import SimulatedProbe
from gpuyard.hardware.this_machine import MachineProbe

_WORDS = 500  # characters of one fact


class Examiner:
    """Looks at the cards each time; tries what they guarantee where the cards are not those of the last time, as trying
    takes seconds and a little of each card."""

    def __init__(self, options: UpOptions, doctor: Callable[[UpOptions], DoctorReport]) -> None:
        self._options, self._doctor = options, doctor
        self._probe: Probe = SimulatedProbe.from_spec(options.simulate) if options.simulate else MachineProbe()
        self._cards: frozenset[str] | None = None
        self._found: Mapping[str, Any] = {}

    def look(self) -> Mapping[str, Any]:
        """As `POST /v1/machine/inventory` takes it."""
        nodes = self._probe.probe().nodes
        cards = frozenset(card.uuid for node in nodes for card in node.cards)
        if cards != self._cards:
            self._found = self._examined()
            self._cards = cards
        node = nodes[0] if nodes else None
        return {
            "cpu_milli": None if node is None else node.cpu_milli,
            "memory_bytes": None if node is None else node.memory_bytes,
            **self._found,
        }

    def _examined(self) -> Mapping[str, Any]:
        report = self._doctor(self._options)
        cards = [
            {**card, "pci_address": card["pci_address"] or None, "driver": card["driver"] or None}
            for card in report["cards"]
        ]
        for card in cards:
            del card["node"]  # what is told of is this machine, whatever it calls itself
        findings = [
            {**found, "params": {name: str(value)[:_WORDS] for name, value in found["params"].items()}}
            for found in report["findings"]
        ]
        return {
            "cards": cards,
            "findings": findings,
            "examined_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
