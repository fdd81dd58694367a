"""What stands in a machine's `cards="2xRTX4090,1xH100"`: catalogue rows made into cards that a driver could report."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import Final

from gpuyard.catalog import cards as catalog
from gpuyard.catalog.cards import CardModel
from gpuyard.model.units import MIB

_GROUP: Final = re.compile(r"\s*(?:(\d{1,2})\s*x\s*)?([A-Za-z0-9][A-Za-z0-9 -]*?)(:mig)?\s*")
_NAMESPACE: Final = uuid.UUID("6b0bfa0e-4f0c-5b0f-9f56-0d5c1b8f0a11")
# Compute capability by architecture (NVIDIA CUDA programming guide); the data-centre parts that differ by name.
_CAPABILITIES: Final = {
    "Volta": (7, 0), "Turing": (7, 5), "Ampere": (8, 6), "Ada Lovelace": (8, 9), "Hopper": (9, 0), "Blackwell": (12, 0),
}  # fmt: skip
_BY_NAME: Final = (("A100", (8, 0)), ("A30", (8, 0)), ("B200", (10, 0)), ("B100", (10, 0)), ("GB200", (10, 0)))
# PCI device ids (pci.ids); another model has none.
_PCI_IDS: Final = {
    "RTX3090": 0x2204, "RTX4080": 0x2704, "RTX4090": 0x2684, "RTX5090": 0x2B85, "A10": 0x2236, "L4": 0x27B8,
    "L40S": 0x26B9, "A100-40GB": 0x20B0, "A100-80GB": 0x20B2, "A100-PCIE-40GB": 0x20F1, "A100-PCIE-80GB": 0x20B5,
    "H100": 0x2330, "H100-PCIE": 0x2331, "H200": 0x2335,
}  # fmt: skip
_VENDOR: Final = 0x10DE


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCard:
    """One card of an emulated machine."""

    model: str
    name: str  # as the driver says it
    uuid: str
    pci_bus: int
    pci_id: int  # device and vendor, as NVML has them in one number
    memory_bytes: int
    multiprocessors: int
    capability: tuple[int, int]
    power_limit_mw: int
    boost_mhz: int
    memory_mhz: int
    bus_width_bits: int
    l2_bytes: int
    pcie_generation: int
    pcie_lanes: int
    consumer: bool
    mig: bool = False  # in MIG mode from the start

    @property
    def pci_address(self) -> str:
        """The address as the kernel writes it."""
        return f"0000:{self.pci_bus:02x}:00.0"


def parse(text: str, seed: str = "") -> tuple[EmulatedCard, ...]:
    """The cards of a list such as `2xRTX4090,1xH100,1xH100:mig`. The same text and seed give the same UUIDs.

    Raises ValueError for another form or more cards than a machine holds, and YardError `unknown_card_model`.
    """
    cards: list[EmulatedCard] = []
    for group in text.split(","):
        match = _GROUP.fullmatch(group)
        if match is None:
            raise ValueError(f"cards: {group.strip()!r} is not of the form 2xRTX4090")
        model = catalog.find(match[2])
        if model.vendor != "nvidia":
            raise ValueError(f"cards: {model.name} is no NVIDIA card, and this driver is NVIDIA's")
        if match[3] and model.mig_instances is None:
            raise ValueError(f"cards: {model.name} has no MIG")
        made = [_card(model, len(cards) + index, seed) for index in range(int(match[1] or 1))]
        cards += [replace(card, mig=True) for card in made] if match[3] else made
    return tuple(cards)


def _card(model: CardModel, index: int, seed: str) -> EmulatedCard:
    name = next((alias for alias in model.aliases if alias.startswith("NVIDIA ")), f"NVIDIA {model.name}")
    capability = next((value for prefix, value in _BY_NAME if model.name.startswith(prefix)), None)
    return EmulatedCard(
        model=model.name,
        name=name,
        uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{seed}/{index}/{model.name}')}",
        pci_bus=index + 1,
        pci_id=_PCI_IDS.get(model.name, 0) << 16 | _VENDOR,
        memory_bytes=model.memory_mib * MIB,
        multiprocessors=model.compute_units,
        capability=capability or _CAPABILITIES.get(model.architecture, (8, 6)),
        power_limit_mw=model.tdp_watts * 1000,
        boost_mhz=model.boost_mhz,
        memory_mhz=model.data_rate_mtps // 2,
        bus_width_bits=model.bus_width_bits,
        l2_bytes=model.l2_bytes,
        pcie_generation=model.pcie_generation,
        pcie_lanes=model.pcie_lanes,
        consumer="GeForce" in name,
    )
