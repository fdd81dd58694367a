"""Money runs out and comes back, through the real command line and a yard of real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path)
    yard.up()
    yield yard
    yard.close()


def test_credit_runs_out_the_disk_is_kept_and_a_top_up_starts_it_again(yard: RealYard, tmp_path: Path) -> None:
    yard.run("tenants", "add", "poor", "--credit", "0.0009")
    operator = {"GPUYARD_TOKEN": yard.token, "GPUYARD_URL": yard.address}
    member = json.loads(yard.run("tokens", "add", "pia", "--tenant", "poor", "--json"))["token"]
    yard.run("login", "--url", yard.address, "--token", member)
    yard.run("run", "--offer", "rtx4090-full", "--instance", "--name", "box")
    (tmp_path / "note.txt").write_text("kept")
    yard.run("cp", str(tmp_path / "note.txt"), "box:/")
    assert Decimal(json.loads(yard.run("wallet", "show", "--json"))["held"]) > 0
    yard.kill()  # in the middle of it
    yard.up()
    operator["GPUYARD_URL"] = yard.address
    yard.run("login", "--url", yard.address, "--token", member)

    def stopped() -> bool:
        return json.loads(yard.run("ps", "--all", "--json"))[0]["state"] == "stopped"

    wait_for(stopped, lambda: yard.run("events"))
    told = yard.run("events")
    assert told.count("tenant.credit_exhausted") == 1
    assert "credit_exhausted" in yard.run("ps", "--all", "--json")
    wallet = json.loads(yard.run("wallet", "show", "--json"))
    assert Decimal("-0.2") < Decimal(wallet["balance"]) <= 0
    assert wallet["disks_kept_until"] is not None
    refused = yard.cli("start", "box")
    assert refused.returncode == 4

    assert yard.cli("topup", "poor", "5").returncode == 3  # a tenant cannot pay itself
    paid = yard.cli("topup", "poor", "5", "--key", "cash-1", environment=operator)
    assert paid.returncode == 0, paid.stderr
    assert "cash-1" in yard.cli("topup", "poor", "5", "--key", "cash-1", environment=operator).stderr
    made = json.loads(yard.cli("voucher", "add", "1.50", "--json", environment=operator).stdout)
    yard.run("voucher", "redeem", made["code"])
    yard.run("start", "box")
    assert yard.run("exec", "box", "--", "cat", "note.txt") == "kept"
    yard.run("budget", "set", "poor", "day", "0.0001", "--hard")
    assert json.loads(yard.run("budget", "list", "--json"))[0]["used_up"] is True
    assert yard.cli("run", "--offer", "rtx4090-quarter", "--instance").returncode == 4
    yard.run("budget", "remove", "poor", "day", "--hard")
    assert "top_up" in yard.run("wallet", "transfers")
    yard.run("idle", "set", "poor", "--warn", "30m", "--pause", "1h", "--signal", "cpu", "--signal", "terminal")
    yard.run("rm", "box")
    wait_for(lambda: yard.run("ps", "--json").strip() == "[]", lambda: yard.run("events"))
    done = yard.cli("reconcile", environment=operator)
    assert done.returncode == 0, done.stdout + done.stderr
