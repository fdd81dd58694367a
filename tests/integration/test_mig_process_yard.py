"""MIG instances under plain processes, end to end: a real yard, real processes, the emulated driver below them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuyard.slicing.building import built
from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow

TAKEN = (
    "import json, pynvml as n; from gpuyard.hardware import mig_nvidia as mig; n.nvmlInit(); "
    "print(json.dumps([[p.profile_id, p.start] for p in mig.read(n, n.nvmlDeviceGetHandleByIndex(1)).taken]))"
)


def taken(yard: RealYard) -> Any:
    """The instances that the driver has, by profile and start."""
    emulated = {"GPUYARD_EMULATOR": str(yard.state / "emulator"), "LD_LIBRARY_PATH": str(built() / "emulator")}
    done = subprocess.run(
        [sys.executable, "-c", TAKEN], env=yard.environment | emulated, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_a_lease_in_an_instance_from_its_offer_to_its_end_through_a_kill_of_the_yard(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[node]]\nname = "one"\ncards = "1xRTX4090,1xH100:mig"\n')
    yard = RealYard(tmp_path, "--fleet", str(fleet), "--runtime", "process")
    yard.up()
    try:
        (offer,) = (offer for offer in yard.json("offers") if offer["name"] == "h100-1g.10gb")
        assert (offer["guarantee"], offer["available"]) == ("kernel", 7)
        assert any("PCIe" in each for each in offer["not_protected"])
        yard.run("run", "--offer", "h100-1g.10gb", "--instance", "--name", "small", "--", "sleep", "600")
        (lease,) = yard.json("show", "small")["leases"]
        assert [cut["instance"] for cut in lease["slices"]] == ["1g.10gb@6"]
        assert "1g.10gb@6" in yard.run("show", "small")
        assert "1g.10gb@6" in yard.run("why", "small")
        assert taken(yard) == [[19, 6]]
        checks = {(check["name"], check["way"]): check for check in yard.json("verify", "small")["checks"]}
        assert all(check["held"] for check in checks.values())
        assert checks["multiprocessors", "all"]["limit"] == 16
        yard.kill()
        yard.up()
        assert taken(yard) == [[19, 6]]
        assert yard.json("verify", "small")["held"]
        yard.run("rm", "small")
        wait_for(lambda: taken(yard) == [], lambda: "the instance is there still")
    finally:
        yard.close()
