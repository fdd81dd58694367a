"""Signing in at the terminal: with a password, and in a browser at a provider that is a process of its own."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import oidc_provider
from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow
OLD, NEW = "correct horse battery staple", "another horse entirely, please"


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "provider"
    folder.mkdir()
    tests = Path(oidc_provider.__file__).parent
    process = subprocess.Popen([sys.executable, oidc_provider.__file__, folder], cwd=tests)
    yield wait_for(lambda: (folder / "issuer").exists() and (folder / "issuer").read_text())
    process.kill()
    process.wait()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path, "--simulate", "1xRTX4090", "--fetch-network", "127.0.0.0/8")
    yard.environment["GPUYARD_NO_BROWSER"] = "1"
    yield yard
    yard.close()


def test_a_person_is_added_signs_in_and_changes_the_password(yard: RealYard) -> None:
    yard.up()
    yard.run("tenants", "add", "lab")
    yard.run("users", "add", "carol", "--tenant", "lab")
    yard.run("users", "set-password", "carol", "--tenant", "lab", environment={"GPUYARD_PASSWORD": OLD})
    login = ("login", "--url", yard.address, "--user", "carol", "--tenant", "lab")
    wrong = yard.cli(*login, environment={"GPUYARD_PASSWORD": NEW})
    assert (wrong.returncode, "[login_refused]" in wrong.stderr) == (3, True)
    yard.run(*login, environment={"GPUYARD_PASSWORD": OLD})
    assert yard.cli("users", "list").returncode == 3
    both = {"GPUYARD_OLD_PASSWORD": OLD, "GPUYARD_PASSWORD": NEW}
    yard.run("users", "change-password", environment=both)
    assert "[unauthenticated]" in yard.cli("ps").stderr
    yard.run(*login, environment={"GPUYARD_PASSWORD": NEW})
    yard.run("ps")

    yard.run("login", "--url", yard.address, "--token", yard.token)
    yard.run("users", "add", "ci", "--tenant", "lab", "--service")
    token = yard.run("users", "rotate-token", "ci", "--tenant", "lab").strip()
    assert yard.cli("--token", token, "ps").returncode == 0
    key = yard.json("keys", "create", "ci", "--tenant", "lab")["id"]
    assert yard.json("keys", "rotate", key, "--keep", "1h")["id"] != key
    yard.run("users", "disable", "ci", "--tenant", "lab")
    assert "[unauthenticated]" in yard.cli("--token", token, "ps").stderr
    assert "disabled" in yard.run("users", "list")
    for path in yard.state.rglob("*"):
        if path.is_file():
            kept = path.read_bytes()
            assert not [one for one in (OLD, NEW, token) if one.encode() in kept], path


def test_a_browser_signs_in_at_the_provider_and_the_terminal_goes_on(yard: RealYard, issuer: str) -> None:
    yard.environment["SSL_CERT_FILE"] = str(yard.home / "provider" / "ca.pem")
    yard.up()
    yard.run("tenants", "add", "lab")
    yard.run("oidc", "set", issuer, "--client-id", oidc_provider.CLIENT_ID)
    yard.run("oidc", "map", "engineers", "--tenant", "lab")
    assert "engineers" in yard.run("oidc", "show")
    told = yard.home / "login.err"
    with told.open("w") as file:
        command = ["gpuyard", "login", "--url", yard.address, "--oidc"]
        terminal = subprocess.Popen(command, env=yard.environment, stderr=file)
    page = wait_for(lambda: re.search(r"https://\S+/authorize\?\S+", told.read_text()), told.read_text)[0]
    context = ssl.create_default_context(cafile=yard.environment["SSL_CERT_FILE"])
    with httpx.Client(verify=context, follow_redirects=True) as browser:
        assert browser.get(page).status_code == 200
    assert terminal.wait(30) == 0, told.read_text()
    assert "oidc:u-1 (member, tenant lab)" in told.read_text()
    yard.run("ps")
    yard.run("login", "--url", yard.address, "--token", yard.token)
    assert "oidc:u-1" in yard.run("users", "list")
    yard.run("oidc", "off")


def test_a_caller_on_this_machine_cannot_name_another_address(yard: RealYard) -> None:
    yard.up()
    with httpx.Client(base_url=yard.address) as stranger:
        answers = [
            stranger.post(
                "/v1/login",
                json={"tenant": "operators", "user": f"user-{n}", "password": OLD},
                headers={"X-Forwarded-For": f"198.51.100.{n}"},
            ).status_code
            for n in range(40)
        ]
    assert 429 in answers  # all of them were counted as one
