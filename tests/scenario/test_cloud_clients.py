"""boto3, the AWS CLI and both SDKs of Alibaba Cloud on a real yard, and the terminal beside them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_yard import RealYard

PYTHON = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"
OLD = Path(__file__).parents[2] / ".venv-clients-old" / "bin" / "python"
BOTO3 = Path(__file__).parents[1] / "boto3_client.py"
SCRIPT = Path(__file__).parents[1] / "cloud_clients.py"
TABLE = Path(__file__).parents[2] / "tools" / "ec2_shapes.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _clients() -> None:
    if not PYTHON.exists() or not OLD.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("the clients are not installed: make clients")
        pytest.skip("the clients are not installed: make clients")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path, "--simulate", "4xRTX4090")
    yard.up()
    yield yard
    yard.cli("down")


def test_four_real_clients_and_the_terminal_live_in_one_world(yard: RealYard) -> None:
    key = json.loads(yard.cli("keys", "create", "ann", "--json").stdout)
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), yard.address, key["id"], key["secret"]],
        env=yard.environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stdout.endswith("ok\n"), done.stderr
    left = done.stdout.split()[-2]
    shown = json.loads(yard.cli("ps", "--json").stdout)
    assert ["i-" + one["id"][3:] for one in shown] == [left]
    assert yard.cli("rm", f"wl-{left[2:]}").returncode == 0
    listed = yard.cli("keys", "list")
    assert key["id"] in listed.stdout
    assert key["secret"] not in listed.stdout
    assert yard.cli("keys", "revoke", key["id"]).returncode == 0
    assert key["secret"].encode() not in b"".join(f.read_bytes() for f in yard.state.iterdir() if f.is_file())


@pytest.mark.parametrize("python", [PYTHON, OLD], ids=["newest", "1.28"])
def test_boto3_old_and_new_has_its_waiters_converge_and_its_presigned_urls_taken(yard: RealYard, python: Path) -> None:
    key = json.loads(yard.cli("keys", "create", "ann", "--role", "operator", "--json").stdout)
    done = subprocess.run(
        [str(python), str(BOTO3), yard.address, key["id"], key["secret"]],
        env=yard.environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.endswith("ok\n"), done.stderr
    shown = json.loads(yard.cli("ps", "--json").stdout)
    assert ["i-" + one["id"][3:] for one in shown] == [done.stdout.split()[-2]]


def test_the_table_of_shapes_is_what_botocores_model_says() -> None:
    subprocess.run([str(PYTHON), str(TABLE), "--check"], check=True, capture_output=True)
