"""Whether a machine is a confidential guest, by the devices that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuyard.hardware.confidential import find_confidential


@pytest.mark.parametrize(("device", "name"), [("sev-guest", "AMD SEV-SNP"), ("tdx_guest", "Intel TDX")])
def test_a_guests_device_is_found(tmp_path: Path, device: str, name: str) -> None:
    (tmp_path / "dev").mkdir()
    assert find_confidential(tmp_path).ok is False
    (tmp_path / "dev" / device).touch()
    found = find_confidential(tmp_path)
    assert (found.ok, found.params["detail"]) == (True, name)
