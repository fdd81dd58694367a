"""A machine's topology as NVML tells it: the same facts as `nvidia-smi topo -m`, without a program to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from gpuyard.model.topology import Link, LinkKind, Topology, format_cpu_list

MAX_LINKS: Final = 18  # of one card, Hopper and Blackwell
_SWITCH: Final = 2  # NVML_NVLINK_DEVICE_TYPE_SWITCH
_ANCESTORS: Final[Mapping[int, LinkKind]] = {
    10: LinkKind.PIX,
    20: LinkKind.PXB,
    30: LinkKind.PHB,
    40: LinkKind.NODE,
    50: LinkKind.SYS,
}  # nvmlGpuTopologyLevel_t
_PCI_DEVICES: Final = Path("/sys/bus/pci/devices")


def probe_topology(nvml: ModuleType, handles: Mapping[str, Any], pci_devices: Path = _PCI_DEVICES) -> Topology:
    """The topology of these cards (PCI address -> handle), NVML being open. What is not told stays unknown."""
    addresses = tuple(sorted(handles))
    joined = {address: _nvlinks(nvml, handles[address]) for address in addresses}
    return Topology(
        devices=addresses,
        links=tuple(tuple(_link(nvml, handles, joined, a, b) for b in addresses) for a in addresses),
        cpus=tuple(_cpus(nvml, handles[address]) for address in addresses),
        numa=tuple(_numa(address, pci_devices) for address in addresses),
    )


def _nvlinks(nvml: ModuleType, handle: Any) -> dict[str, int]:
    """How many links are up to each remote end: a card's PCI address, or `switch`."""
    found: dict[str, int] = {}
    for link in range(MAX_LINKS):
        try:
            if not nvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            kind = _or_none(nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            if kind == _SWITCH:
                remote = "switch"
            else:
                pci = nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)
                remote = f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"
        except nvml.NVMLError:
            continue  # this card has no such link
        found[remote] = found.get(remote, 0) + 1
    return found


def _link(
    nvml: ModuleType, handles: Mapping[str, Any], joined: Mapping[str, Mapping[str, int]], a: str, b: str
) -> Link:
    if a == b:
        return Link(LinkKind.SELF)
    lanes = joined[a].get(b, 0) or min(joined[a].get("switch", 0), joined[b].get("switch", 0))
    if lanes:
        return Link(LinkKind.NVLINK, lanes)
    level = _or_none(nvml, "nvmlDeviceGetTopologyCommonAncestor", handles[a], handles[b])
    return Link(_ANCESTORS.get(level, LinkKind.UNKNOWN) if isinstance(level, int) else LinkKind.UNKNOWN)


def _cpus(nvml: ModuleType, handle: Any) -> str | None:
    words = _or_none(nvml, "nvmlDeviceGetCpuAffinity", handle, 64)
    if words is None:
        return None
    cpus = frozenset(64 * place + bit for place, word in enumerate(words) for bit in range(64) if int(word) >> bit & 1)
    return format_cpu_list(cpus) or None


def _numa(address: str, pci_devices: Path) -> int | None:
    try:
        number = int((pci_devices / address / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None


def _or_none(nvml: ModuleType, name: str, *arguments: Any) -> Any:
    call = getattr(nvml, name, None)
    if call is None:
        return None
    try:
        return call(*arguments)
    except (nvml.NVMLError, AttributeError):  # AttributeError: a driver older than the function
        return None
