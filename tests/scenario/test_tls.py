"""A yard that speaks TLS, and the command line that pins its authority."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.model.errors import YardError
from gpuyard.sdk import calls
from gpuyard.sdk.client import Client
from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow


class SecureYard(RealYard):
    """One that is not logged in to yet: `told` is what it said when it was up."""

    def up(self) -> None:
        log = self.home / "up.log"
        with log.open("w") as file:
            command = ["gpuyard", "up", "--port", "0", "--json", *self.options]
            self.server = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        self.told = json.loads(wait_for(lambda: re.search(r"(?m)^\{.*\}$", log.read_text()), log.read_text)[0])


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[SecureYard]:
    yard = SecureYard(tmp_path, "--simulate", "1xRTX4090", "--tls")
    yard.up()
    yield yard
    yard.close()


def test_a_login_pins_the_authority_and_everything_goes_on_over_tls(yard: SecureYard) -> None:
    url, token, sha256 = yard.told["address"], yard.told["token"], yard.told["ca_sha256"]
    assert url.startswith("https://127.0.0.1:")
    refused = yard.cli("login", "--url", url, "--token", token)
    assert refused.returncode == 8
    assert "--ca-sha256" in refused.stderr
    assert "[yard_not_trusted]" in refused.stderr
    wrong = yard.cli("login", "--url", url, "--token", token, "--ca-sha256", "00" * 32)
    assert "[yard_not_trusted]" in wrong.stderr

    yard.run("login", "--url", url, "--token", token, "--ca-sha256", sha256)
    yard.run("run", "--offer", "rtx4090-quarter", "--instance", "--name", "box")
    assert yard.run("exec", "box", "--", "echo", "over tls") == "over tls\n"

    pem = (yard.state / "tls" / "ca.pem").read_text()
    with Client(url, token, ca=pem) as client:
        assert client.send(calls.whoami())["role"] == "operator"
    yard.run("login", "--url", url, "--token", token, "--ca", str(yard.state / "tls" / "ca.pem"))
    assert yard.json("status")["address"] == url


def test_another_authority_is_not_trusted_and_plain_http_is_not_answered(yard: SecureYard, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from gpuyard.access.certificates import new_authority

    url, token = yard.told["address"], yard.told["token"]
    other = new_authority("gpuyard", datetime.now(UTC)).certificate.decode()
    with Client(url, token, ca=other) as client, pytest.raises(YardError, match="yard_not_trusted"):
        client.send(calls.whoami())
    with Client(url.replace("https", "http"), token) as client, pytest.raises(YardError, match="unreachable"):
        client.send(calls.whoami())
    with pytest.raises(YardError, match="tls_unusable"):
        Client(url, token, ca="no certificate")


def test_old_versions_of_tls_are_not_spoken(yard: SecureYard) -> None:
    import ssl
    import warnings

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, port = yard.told["address"].removeprefix("https://").split(":")
    with socket.create_connection((host, int(port))) as raw, pytest.raises(OSError):
        context.wrap_socket(raw)


def test_beyond_loopback_a_yard_without_tls_does_not_start(tmp_path: Path) -> None:
    yard = RealYard(tmp_path)
    done = yard.cli("up", "--simulate", "1xRTX4090", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "[not_loopback]" in done.stderr
    assert not yard.state.exists()
    done = yard.cli("up", "--simulate", "1xRTX4090", "--tls", "--tls-cert", "x", "--tls-key", "y")
    assert "[invalid_request]" in done.stderr
    done = yard.cli(
        "up", "--simulate", "1xRTX4090", "--port", "0", "--tls-cert", "/nowhere/x", "--tls-key", "/nowhere/y"
    )
    assert "[tls_unusable]" in done.stderr
