"""AMD cards, found through what the kernel says of them below /sys/class/drm: no tool and no library is needed. Each is
leased whole; a card that its driver splits into partitions shows as one card per partition, and the finding says so.

The kernel names a model only where the board carries one, so `rocm-smi`, where it is installed, is asked for the names.
Files: https://docs.kernel.org/gpu/amdgpu/driver-misc.html
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from gpuyard.catalog import cards as catalog
from gpuyard.hardware.local_node import local_node
from gpuyard.hardware.probe import Finding, ProbeReport
from gpuyard.model.fleet import Card

PREFIX: Final = "AMD-"
_DRM: Final = Path("/sys/class/drm")
_VENDOR: Final = "0x1002"
_TIMEOUT_S: Final = 30


def rocm_smi() -> str:
    """What `rocm-smi` says of every card, as JSON; empty where it is not there or fails."""
    program = shutil.which("rocm-smi")
    if program is None:
        return ""
    command = [program, "--showproductname", "--showuniqueid", "--showbus", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


class AmdProbe:
    """This machine's AMD cards. A card whose driver does not tell its memory is left out and named in a finding."""

    name = "amd"

    def __init__(self, node: str = "local", drm: Path = _DRM, tool: Callable[[], str] = rocm_smi) -> None:
        self._node = node
        self._drm = drm
        self._tool = tool
        self._names: dict[str, str] = {}

    def probe(self) -> ProbeReport:
        """This machine with the AMD cards whose driver is loaded now."""
        cards: list[Card] = []
        findings: list[Finding] = []
        folders = [folder for folder in sorted(self._drm.glob("card*/device")) if _is_card(folder)]
        addresses = {_address(folder) for folder in folders}
        if not addresses <= self._names.keys():  # a tool of Python's is slow: it is asked once for each card
            self._names = {**dict.fromkeys(addresses, ""), **names(self._tool())}
        for folder in folders:
            self._look(folder, cards, findings)
        if folders or self._names:  # none of those that were here may answer now
            findings.append(Finding("amd_cards", bool(cards), {"count": len(cards)}))
        return ProbeReport((local_node(self._node, cards),), tuple(findings))

    def _look(self, folder: Path, cards: list[Card], findings: list[Finding]) -> None:
        address = _address(folder)
        memory = _read(folder / "mem_info_vram_total")
        if not memory.isdecimal() or not int(memory):
            findings.append(Finding("amd_card_unread", False, {"address": address}))
            return
        reported = self._names.get(address) or _read(folder / "product_name")
        known = catalog.lookup(reported) if reported else None
        numa = _read(folder / "numa_node")
        unique = _read(folder / "unique_id")
        card = Card(
            uuid=PREFIX + (unique or address),
            model=known.name if known is not None else clean_model(reported),
            node=self._node,
            pci_address=address,
            memory_bytes=int(memory),
            numa_node=int(numa) if numa.isdecimal() else None,
            driver=_read(folder / "driver" / "module" / "version") or None,
        )
        cards.append(card)
        if known is None:
            told = {"model": card.model, "reported": reported or "--", "card": card.uuid}
            findings.append(Finding("card_model", False, told))
        compute, layout = _read(folder / "current_compute_partition"), _read(folder / "current_memory_partition")
        if compute or layout:
            told = {"card": card.uuid, "compute": compute or "--", "memory": layout or "--"}
            findings.append(Finding("amd_partition", True, told))


def names(printed: str) -> dict[str, str]:
    """Models by PCI address, from what `rocm-smi --json` printed; its keys changed their spelling over the years."""
    try:
        told: object = json.loads(printed[printed.index("{") :]) if "{" in printed else {}
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for card in (cast("Mapping[str, Any]", told) if isinstance(told, dict) else {}).values():
        if not isinstance(card, dict):
            continue
        values = {str(key).casefold(): str(value) for key, value in cast("Mapping[str, Any]", card).items()}
        address = values.get("pci bus", "").lower()
        name = values.get("card series") or values.get("device name") or ""
        bracketed = re.search(r"\[(.+)\]", name)  # `Arcturus GL-XL [Instinct MI100]`: the chip, and then the card
        if address and name not in {"", "N/A"}:
            found[address] = (bracketed[1] if bracketed else name).strip()
    return found


def is_amd(uuid: str) -> bool:
    """Whether a card of that UUID is AMD's."""
    return uuid.startswith(PREFIX)


def visible(uuids: Iterable[str]) -> dict[str, str]:
    """The variable by which ROCm's runtime shows a program these cards alone: by unique id, which those of consumers
    lack. None where there is no AMD card with one among them."""
    ids = [f"GPU-{uuid.removeprefix(PREFIX)}" for uuid in uuids if is_amd(uuid) and ":" not in uuid]
    return {"ROCR_VISIBLE_DEVICES": ",".join(ids)} if ids else {}


def clean_model(reported: str) -> str:
    """A model name for a card that the catalogue lacks: `Radeon Instinct MI50 32GB` -> `InstinctMI5032GB`."""
    words = [word for word in reported.split() if word.casefold() not in {"amd", "radeon"}]
    return re.sub(r"[^A-Za-z0-9-]", "", "".join(words))[:40].strip("-") or "AMD"


def _is_card(folder: Path) -> bool:
    # `card0-DP-1` is an outlet of a card, whose `device` leads to the card again.
    return re.fullmatch(r"card\d+", folder.parent.name) is not None and _read(folder / "vendor") == _VENDOR


def _address(folder: Path) -> str:
    return folder.resolve().name.lower()


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
