"""What a machine has and can guarantee, looked at and tried without a yard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpuyard.adapters import Tried, find_driver_inside, find_encryption, try_all
from gpuyard.cli.host import CardGuarantee, DoctorReport, FoundCard, UpOptions
from gpuyard.engines.container.sockets import find_socket
from gpuyard.hardware.confidential import find_confidential
from gpuyard.hardware.probe import Finding
from gpuyard.hardware.simulated import SimulatedProbe
from gpuyard.hardware.this_machine import MachineProbe
from gpuyard.instances import try_mig
from gpuyard.model.fleet import Card
from gpuyard.model.slices import SliceShape
from gpuyard.slicing.ladder import guarantee


def doctor(options: UpOptions) -> DoctorReport:
    """Findings (name, ok, params) and guarantees by card."""
    probe = SimulatedProbe.from_spec(options.simulate) if options.simulate else MachineProbe()
    report = probe.probe()
    engine = find_socket()
    podman = engine is not None and engine.podman
    kind = options.runtime if options.runtime != "auto" else "process"
    cards = [card for node in report.nodes for card in node.cards]
    tried = Tried(None, frozenset(), ())
    if cards and kind != "simulated":
        with tempfile.TemporaryDirectory() as scratch:
            tried = _try_all(options, cards, kind, Path(scratch))
    if kind == "container" and engine is not None and not podman:
        tried = replace(tried, by_kernel=frozenset())
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


def _try_all(options: UpOptions, cards: Sequence[Card], kind: str, scratch: Path) -> Tried:
    simulated, contained = options.simulate is not None, kind == "container"
    tried = try_all(cards, scratch, simulated, contained, options.mps, options.kernel_limits, None)
    keeper = tried.keeper
    if keeper is None:
        return replace(tried, shim=frozenset()) if contained else tried
    _, instances, found = try_mig(cards, keeper.driver, scratch, "doctor")
    tried = replace(tried, findings=(*tried.findings, *found))
    if not contained:
        return replace(tried, shim=tried.shim | instances)
    inside = find_driver_inside(keeper, simulated, tried.shim)
    shim = tried.shim & (inside.cards if inside is not None else frozenset())
    return replace(tried, shim=shim, by_kernel=tried.by_kernel & shim)


def _told(card: Card, kind: str, tried: Tried) -> FoundCard:
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


def _guarantee(name: str, card: Card, parts: int, kind: str, tried: Tried) -> CardGuarantee:
    shape = SliceShape.fraction(card.memory_bytes, parts)
    verdict = guarantee(card, shape, kind, tried.shim, tried.mps, tried.by_kernel)
    return {
        "shape": name,
        "guarantee": verdict.guarantee.value,
        "because": verdict.because,
        "not_protected": list(verdict.not_protected),
    }
