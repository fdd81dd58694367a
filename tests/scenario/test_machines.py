"""A machine that joins a real yard from the command line, and what both sides are told when something is wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow
CARDS = ("--simulate", "1xH100", "--runtime", "simulated")


class YardWithMachines(RealYard):
    """One that speaks TLS and listens for machines, on the ports that it had before."""

    def up(self) -> None:
        self.starts += 1
        log = self.home / f"up-{self.starts}.log"
        with log.open("w") as file:
            command = ["gpuyard", "up", "--json", *self.options]
            self.server = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        told = json.loads(wait_for(lambda: re.search(r"(?m)^\{.*\}$", log.read_text()), log.read_text)[0])
        if told["token"]:
            self.run("login", "--url", told["address"], "--token", told["token"], "--ca-sha256", told["ca_sha256"])
        ports = [told[name].rsplit(":", 1)[1] for name in ("address", "machines")]
        self.options = ("--port", ports[0], "--machines", f"127.0.0.1:{ports[1]}", *OPTIONS)


OPTIONS = ("--simulate", "1xRTX4090", "--runtime", "simulated", "--tls")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[YardWithMachines]:
    yard = YardWithMachines(tmp_path, "--port", "0", "--machines", "127.0.0.1:0", *OPTIONS)
    yard.up()
    yield yard
    yard.close()


def test_a_machine_joins_works_through_the_death_of_the_yard_and_ends_when_it_is_revoked(
    yard: YardWithMachines,
) -> None:
    line = yard.run("machines", "invite", "--name", "rack2").split()[1:]
    wrong = [re.sub(r"\.[0-9a-f]{64}$", "." + "00" * 32, word) for word in line]
    refused = yard.cli(*wrong)
    assert (refused.returncode, "[join_not_trusted]" in refused.stderr) == (8, True)
    yard.run(*line)
    assert yard.json("machine", "show")["id"].endswith("/machine/rack2")
    again = yard.cli(*line, environment={"GPUYARD_LANG": "zh"})
    assert "[machine_already_joined]" in again.stderr
    assert "--again" in again.stderr

    log = yard.home / "machine.log"
    with log.open("w") as file:
        command = ["gpuyard", "machine", "run", *CARDS]
        machine = subprocess.Popen(command, env=yard.environment, stdout=file, stderr=file)
    wait_for(lambda: "At work as spiffe://" in log.read_text(), log.read_text)
    second = yard.cli("machine", "run", "--once", *CARDS)
    assert "[machine_running]" in second.stderr
    seen = yard.json("machines", "list")[0]
    assert (seen["name"], seen["state"], seen["late"], seen["cards"]) == ("rack2", "joined", False, 1)

    yard.kill()
    machine.send_signal(signal.SIGTERM)
    assert machine.wait(20) == 0
    away = yard.cli("machine", "run", "--once", *CARDS)
    assert (away.returncode, "Tries again" in away.stderr) == (7, True)
    assert "Traceback" not in away.stderr
    yard.up()
    yard.run("machine", "run", "--once", *CARDS)

    yard.run("machines", "revoke", "rack2")
    refused = yard.cli("machine", "run", *CARDS)
    assert refused.returncode == 3
    assert "it was revoked" in refused.stderr
    assert "Traceback" not in refused.stderr
    line = yard.run("machines", "invite", "--name", "rack2").split()[1:]
    yard.run(*line, "--again")
    yard.run("machine", "run", "--once", *CARDS)
    assert "rack2" in yard.run("machines", "list")


def test_the_port_is_asked_for_before_anything_is_made(tmp_path: Path) -> None:
    yard = RealYard(tmp_path)
    for address in ("8471", "yard.example:8471", "127.0.0.1:99999", "127.0.0.1:x"):
        done = yard.cli("up", "--simulate", "1xRTX4090", "--port", "0", "--machines", address)
        assert (done.returncode, "[invalid_request]" in done.stderr) == (2, True), address
    assert not yard.state.exists()
