"""Real NVIDIA cards, found through NVML (the library that comes with the driver) by way of nvidia-ml-py.

Each probe opens NVML anew, so that a driver that was installed, reloaded or lost meanwhile is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gpuyard.catalog import cards as catalog
from gpuyard.hardware import mig_nvidia
from gpuyard.hardware.local_node import local_node
from gpuyard.hardware.probe import Finding, ProbeReport
from gpuyard.hardware.topology_nvml import probe_topology
from gpuyard.model.fleet import Card
from gpuyard.model.mig import MigCard
from gpuyard.model.topology import Topology

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")

# The call that limits a cgroup's device memory; drivers from r615 on have it (NVIDIA MPS guide, memory partitioning).
MEMORY_LIMITS_SYMBOL: Final = "nvmlDeviceGetMemoryLimits_v1"

_PCI_DEVICES: Final = Path("/sys/bus/pci/devices")


class NvidiaProbe:
    """This machine's NVIDIA cards. A card that is lost, or does not answer, is left out and named in a finding."""

    name = "nvidia"

    def __init__(self, node: str = "local", pci_devices: Path = _PCI_DEVICES) -> None:
        self._node = node
        self._pci_devices = pci_devices
        self._topology: Topology | None = None  # as the last probe found it

    def probe(self) -> ProbeReport:
        """This machine with the cards that answer now; where NVML or a driver is missing, none and a finding."""
        cards: list[Card] = []
        findings: list[Finding] = []
        self._topology = None
        try:
            import pynvml
        except ImportError as error:
            findings.append(Finding("nvml_bindings", False, {"detail": str(error)}))
        else:
            self._probe_with(pynvml, cards, findings)
        node = replace(local_node(self._node, cards), topology=self._topology)
        return ProbeReport((node,), tuple(findings))

    def _probe_with(self, nvml: ModuleType, cards: list[Card], findings: list[Finding]) -> None:
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            absent = error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND
            findings.append(Finding("nvml" if absent else "nvidia_driver", False, {"detail": str(error)}))
            return
        try:
            self._probe_opened(nvml, cards, findings)
        finally:
            _or_none(nvml, nvml.nvmlShutdown)

    def _probe_opened(self, nvml: ModuleType, cards: list[Card], findings: list[Finding]) -> None:
        driver = _or_none(nvml, nvml.nvmlSystemGetDriverVersion)
        findings.append(Finding("nvml", True))
        findings.append(Finding("nvidia_driver", True if driver else None, {"version": driver or "--"}))
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            findings.append(Finding("nvidia_cards", None, {"count": 0, "detail": str(error)}))
            return
        handles: dict[str, Any] = {}
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                card = self._card(nvml, handle, driver, findings)
                mig = _or_none(nvml, nvml.nvmlDeviceGetMigMode, handle)
            except nvml.NVMLError as error:
                findings.append(Finding("card_lost", False, {"index": index, "detail": str(error)}))
                continue
            told = self._find_mig(nvml, handle, card, findings) if mig is not None else None
            cards.append(card if told is None or not told.enabled else replace(card, mig=replace(told, taken=())))
            handles[card.pci_address] = handle
        findings.append(Finding("nvidia_cards", bool(cards), {"count": len(cards), "detail": f"{count} listed"}))
        if handles:
            self._topology = probe_topology(nvml, handles, self._pci_devices)
        if cards:
            findings.append(Finding("memory_limits", _has(nvml, MEMORY_LIMITS_SYMBOL), {"driver": driver or "--"}))

    def _find_mig(self, nvml: ModuleType, handle: Any, card: Card, findings: list[Finding]) -> MigCard | None:
        try:
            told = mig_nvidia.read(nvml, handle)
        except nvml.NVMLError:
            return None  # lost meanwhile: the next look says so
        if told is not None:
            profiles = ", ".join(profile.name for profile in told.profiles)
            params = {"card": card.uuid, "model": card.model, "profiles": profiles, "instances": len(told.taken)}
            findings.append(Finding("mig_mode" if told.enabled else "mig_profiles", bool(told.profiles), params))
        return told

    def _card(self, nvml: ModuleType, handle: Any, driver: str | None, findings: list[Finding]) -> Card:
        """What must be known of a card; raises NVMLError where it does not say."""
        reported = str(nvml.nvmlDeviceGetName(handle))
        known = catalog.lookup(reported)
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        pci = nvml.nvmlDeviceGetPciInfo(handle)
        address = f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"
        memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        model = known.name if known is not None else clean_model(reported)
        if known is None:
            findings.append(Finding("card_model", False, {"model": model, "reported": reported, "card": uuid}))
        return Card(
            uuid=uuid,
            model=model,
            node=self._node,
            pci_address=address,
            memory_bytes=memory_bytes,
            numa_node=self._numa_node(address),
            driver=driver,
        )

    def _numa_node(self, address: str) -> int | None:
        """The kernel's answer. NVML's own NUMA call names the memory node of a coherent card, not its host's."""
        try:
            number = int((self._pci_devices / address / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return number if number >= 0 else None


def clean_model(reported: str) -> str:
    """A model name for a card that the catalogue lacks: `NVIDIA GeForce RTX 2080 SUPER` -> `RTX2080SUPER`."""
    words = [word for word in reported.split() if word.casefold() not in {"nvidia", "geforce", "tesla", "quadro"}]
    plain = re.sub(r"[^A-Za-z0-9-]", "", "".join(words))
    return plain[:40].strip("-") or "unknown"


def _or_none(nvml: ModuleType, call: Callable[..., T], *arguments: Any) -> T | None:
    """The answer of an optional call; None where this card or driver has none. A lost card is still raised."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None


def _has(nvml: ModuleType, symbol: str) -> bool:
    """Whether the driver's library has this function. nvidia-ml-py keeps the loaded library in a module attribute."""
    return hasattr(getattr(nvml, "nvmlLib", None), symbol)
