"""A tenant's day at the terminal, against a real yard with real processes."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from real_yard import RealYard, commands_below, processes_below, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path)
    yard.up()
    yield yard
    yard.close()


def test_a_job_a_service_and_an_instance_and_their_bill(yard: RealYard, tmp_path: Path) -> None:
    assert "rtx4090-quarter" in yard.run("offers")
    told = yard.run(
        "run",
        "--offer",
        "rtx4090-quarter",
        "--job",
        "--name",
        "hello",
        "--follow",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2",
    )
    assert "out" in told
    failing = yard.cli(
        "run", "--offer", "rtx4090-quarter", "--job", "--name", "bad", "--follow", "--", "sh", "-c", "exit 7"
    )
    assert failing.returncode == 7

    yard.run("run", "--offer", "rtx4090-eighth", "--instance", "--name", "box")
    (tmp_path / "note.txt").write_text("kept")
    yard.run("cp", str(tmp_path / "note.txt"), "box:/notes/")
    assert yard.run("exec", "box", "--", "cat", "notes/note.txt") == "kept"
    assert yard.cli("exec", "box", "--", "sh", "-c", "exit 3").returncode == 3
    yard.run("stop", "box")
    assert yard.cli("exec", "box", "--", "true").returncode == 6
    yard.run("start", "box")
    (tmp_path / "back").mkdir()
    yard.run("cp", "box:/notes/note.txt", str(tmp_path / "back"))
    assert (tmp_path / "back" / "note.txt").read_text() == "kept"

    serve = "exec python3 -m http.server $PORT --bind 127.0.0.1"
    yard.run("run", "--offer", "rtx4090-quarter", "--service", "--name", "web", "-p", "8000", "--", "sh", "-c", serve)
    forward = subprocess.Popen(
        ["gpuyard", "forward", "web", "8000"],
        env=yard.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert forward.stdout is not None
        address = wait_for(lambda: re.search(r"127\.0\.0\.1:\d+", forward.stdout.readline()))[0]  # type: ignore[union-attr]
        page = wait_for(lambda: fetch(f"http://{address}/"))
        assert b"Directory listing" in page
    finally:
        forward.terminate()
        forward.wait(10)

    states = {workload["name"]: workload["state"] for workload in yard.json("ps")}
    assert states == {"hello": "succeeded", "bad": "failed", "box": "running", "web": "running"}
    assert [line["text"] for line in logs(yard, "hello") if line["stream"] == "stdout"] == ["out"]
    bill = yard.json("bill")
    assert Decimal(bill["total"]) == sum(Decimal(line["amount"]) for line in bill["lines"]) > 0
    assert {line["workload_name"] for line in bill["lines"]} >= {"hello", "bad", "box"}
    kinds = [json.loads(line)["kind"] for line in yard.run("events", "--json").splitlines()]
    assert kinds.count("workload.pending") >= 4
    yard.run("rm", "hello", "bad", "box", "web")
    assert yard.json("ps") == []
    yard.run("down")
    assert yard.server is not None
    yard.server.wait(20)
    wait_for(lambda: not processes_below(tmp_path), lambda: commands_below(tmp_path))


def fetch(address: str) -> bytes | None:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.read()
    except OSError:
        return None


def logs(yard: RealYard, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in yard.run("logs", name, "--json").splitlines()]


@pytest.mark.parametrize(
    "words",
    [
        ["offers"],
        ["cards"],
        ["nodes"],
        ["ps"],
        ["bill"],
        ["tenants", "list"],
        ["tokens", "list"],
        ["status"],
        ["doctor"],
    ],
)
def test_json_is_one_document(yard: RealYard, words: list[str]) -> None:
    assert yard.json(*words) is not None


def test_a_launch_that_is_not_waited_for_returns_at_once(yard: RealYard) -> None:
    made = json.loads(yard.run("run", "--offer", "rtx4090-half", "--job", "--no-wait", "--json", "--", "sleep", "60"))
    assert made["state"] in {"pending", "starting", "running"}


def test_what_does_not_fit_waits_and_says_why(yard: RealYard) -> None:
    for _ in range(2):
        yard.run("run", "--offer", "rtx4090-full", "--instance")
    yard.json("run", "--offer", "rtx4090-full", "--instance", "--name", "waits", "--no-wait")
    shown = wait_for(lambda: text if "No node" in (text := yard.run("show", "waits")) else None)
    assert "waits" in shown
    planned = yard.run("run", "--offer", "rtx4090-half", "--job", "--dry-run", "--", "true")
    assert planned
