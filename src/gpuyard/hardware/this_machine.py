"""The cards of this machine, whoever made them: one node over the probes of each vendor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gpuyard.hardware.amd import AmdProbe
from gpuyard.hardware.nvidia import NvidiaProbe
from gpuyard.hardware.probe import Finding, Probe, ProbeReport
from gpuyard.model.fleet import Node


class MachineProbe:
    """Asks every vendor's probe. What the first of them says of the node itself holds."""

    name = "local"

    def __init__(self, probes: Sequence[Probe] | None = None, region: str | None = None) -> None:
        self._probes = (NvidiaProbe(), AmdProbe()) if probes is None else tuple(probes)
        self._region = region  # nothing on a machine says where it stands

    def probe(self) -> ProbeReport:
        """This machine with the cards of all vendors."""
        nodes: dict[str, Node] = {}
        findings: list[Finding] = []
        for probe in self._probes:
            report = probe.probe()
            findings += report.findings
            for node in report.nodes:
                known = nodes.get(node.name)
                nodes[node.name] = node if known is None else replace(known, cards=(*known.cards, *node.cards))
        here = (replace(node, region=self._region or node.region) for node in nodes.values())
        return ProbeReport(tuple(here), tuple(findings))
