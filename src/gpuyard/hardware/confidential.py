"""Whether this machine is itself a confidential guest. That it says so proves nothing: only verified evidence does."""

from __future__ import annotations

from pathlib import Path

from gpuyard.hardware.probe import Finding

# Devices by which a guest asks its processor for a report.
_GUESTS = {"AMD SEV-SNP": "dev/sev-guest", "Intel TDX": "dev/tdx_guest"}


def find_confidential(root: Path = Path("/")) -> Finding:
    """Which of them is here."""
    try:
        found = [name for name, device in _GUESTS.items() if (root / device).exists()]
    except OSError:
        return Finding("confidential", None)
    if found:
        return Finding("confidential", True, {"detail": ", ".join(found)})
    return Finding("confidential", False, {"detail": ", ".join(f"/{device}" for device in _GUESTS.values())})
