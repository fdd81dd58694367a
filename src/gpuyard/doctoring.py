"""What a machine has and can guarantee, looked at and tried without a yard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpuyard.adapters import find_driver_inside, find_encryption, try_mps_on, try_slices
from gpuyard.cli.host import CardGuarantee, DoctorReport, FoundCard, UpOptions
from gpuyard.engines.container.sockets import find_socket
from gpuyard.hardware.confidential import find_confidential
from gpuyard.hardware.probe import Finding
from gpuyard.hardware.simulated import SimulatedProbe
from gpuyard.hardware.this_machine import MachineProbe
from gpuyard.instances import try_mig
from gpuyard.limiting import scratch_groups, try_kernel_on
from gpuyard.model.fleet import Card
from gpuyard.model.slices import SliceShape
from gpuyard.slicing.ladder import guarantee


@dataclass(slots=True)
class _Tried:
    """The cards (by UUID) on which each way of holding slices was seen to work, and what is said of that."""

    shim: frozenset[str] = frozenset()
    mps: frozenset[str] = frozenset()
    by_kernel: frozenset[str] = frozenset()
    findings: list[Finding] = field(default_factory=list[Finding])


def doctor(options: UpOptions) -> DoctorReport:
    """Findings (name, ok, params) and guarantees by card."""
    probe = SimulatedProbe.from_spec(options.simulate) if options.simulate else MachineProbe()
    report = probe.probe()
    engine = find_socket()
    podman = engine is not None and engine.podman
    kind = options.runtime if options.runtime != "auto" else "process"
    cards = [card for node in report.nodes for card in node.cards]
    tried = _Tried()
    if cards and kind != "simulated":
        with tempfile.TemporaryDirectory() as scratch:
            tried = _try_all(options, cards, kind, Path(scratch))
    if kind == "container" and engine is not None and not podman:
        tried.by_kernel = frozenset()
    findings = [
        *report.findings,
        Finding("podman", podman or shutil.which("podman") is not None),
        Finding("docker", engine is not None and not podman),
        find_confidential(),
        find_encryption(),
        *tried.findings,
    ]
    return {
        "findings": [{"name": f.name, "ok": f.ok, "params": dict(f.params)} for f in findings],
        "cards": [_told(card, kind, tried) for card in cards],
    }


def _try_all(options: UpOptions, cards: Sequence[Card], kind: str, scratch: Path) -> _Tried:
    simulated = options.simulate is not None
    keeper, shim, finding = try_slices(cards, scratch, simulated, options.kernel_limits)
    tried = _Tried(shim, findings=[finding])
    if keeper is None:
        return _Tried(findings=[finding]) if kind == "container" else tried
    if keeper.mps is not None:
        keeper.mps.contained = kind == "container"
    tried.mps, finding = try_mps_on(keeper, shim, options.mps)
    tried.findings.append(finding)
    with scratch_groups() as groups:
        tried.by_kernel, finding = try_kernel_on(keeper, shim, tried.mps, groups, options.kernel_limits)
    tried.findings.append(finding)
    _, instances, found = try_mig(cards, keeper.driver, scratch, "doctor")
    tried.findings += found
    if kind == "process":
        tried.shim |= instances
    if kind == "container":
        inside = find_driver_inside(keeper, simulated, shim)
        tried.shim &= inside.cards if inside is not None else frozenset()
        tried.by_kernel &= tried.shim
    return tried


def _told(card: Card, kind: str, tried: _Tried) -> FoundCard:
    shapes = (("full", 1), ("fraction", 2)) if card.mig is None else (("instance", 1),)
    return {
        "uuid": card.uuid,
        "model": card.model,
        "node": card.node,
        "pci_address": card.pci_address,
        "memory_bytes": card.memory_bytes,
        "driver": card.driver,
        "simulated": card.simulated,
        "guarantees": [_guarantee(name, card, parts, kind, tried) for name, parts in shapes],
    }


def _guarantee(name: str, card: Card, parts: int, kind: str, tried: _Tried) -> CardGuarantee:
    shape = SliceShape.fraction(card.memory_bytes, parts)
    verdict = guarantee(card, shape, kind, tried.shim, tried.mps, tried.by_kernel)
    return {
        "shape": name,
        "guarantee": verdict.guarantee.value,
        "because": verdict.because,
        "not_protected": list(verdict.not_protected),
    }
