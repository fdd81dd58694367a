"""A real yard with real processes, killed with -9: nothing runs twice, nothing is lost, nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from real_yard import RealYard, processes_below, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path, "--simulate", "8xRTX4090", "--runtime", "process")
    yard.up()
    yield yard
    yard.close()


def state_of(yard: RealYard, name: str) -> str:
    return yard.json("show", name)["state"]


def pids_of(mark: str) -> list[int]:
    """Processes whose command line holds the mark."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def test_a_killed_yard_adopts_what_runs_and_starts_nothing_twice(yard: RealYard, tmp_path: Path) -> None:
    book = tmp_path / "book"
    count = f"echo begun >> {book}; i=0; while [ $i -lt 300 ]; do i=$((i+1)); sleep 0.1; done"
    yard.run(
        "run", "--offer", "rtx4090-half", "--job", "--name", "count", "--no-wait", "--", "sh", "-c", count, "mark-count"
    )
    yard.run("run", "--offer", "rtx4090-half", "--instance", "--name", "box", "--", "sh", "-c", "sleep 600", "mark-box")
    wait_for(lambda: state_of(yard, "count") == "running")
    before = pids_of("mark-count") + pids_of("mark-box")
    assert len(before) >= 2
    for _ in range(3):
        yard.kill()
        assert pids_of("mark-count") + pids_of("mark-box") == before
        yard.up()
        assert {state_of(yard, "count"), state_of(yard, "box")} == {"running"}
    assert pids_of("mark-count") + pids_of("mark-box") == before
    assert book.read_text() == "begun\n"
    yard.run("rm", "count", "box")
    wait_for(lambda: not pids_of("mark-count") + pids_of("mark-box"))


def test_what_ended_while_the_yard_was_dead_is_billed_to_its_end(yard: RealYard, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    wait = f"while [ ! -e {go_on} ]; do sleep 0.05; done; exit 4"
    yard.run(
        "run", "--offer", "rtx4090-half", "--job", "--name", "late", "--no-wait", "--", "sh", "-c", wait, "mark-late"
    )
    wait_for(lambda: pids_of("mark-late"))
    wait_for(lambda: state_of(yard, "late") == "running")
    yard.kill()
    go_on.touch()
    wait_for(lambda: not pids_of("mark-late"))
    yard.up()
    shown = wait_for(lambda: found if (found := yard.json("show", "late"))["state"] == "failed" else None)
    assert shown["exit_code"] == 4
    interval = [i for i in intervals(yard) if i["workload_id"] == shown["id"]][-1]
    assert interval["proof"] == "exit_record"


def intervals(yard: RealYard) -> list[dict[str, str]]:
    headers = {"Authorization": f"Bearer {yard.token}"}
    return httpx.get(f"{yard.address}/v1/intervals?limit=500", headers=headers).json()["items"]


def test_a_service_that_is_killed_from_outside_is_started_again(yard: RealYard) -> None:
    yard.run("run", "--offer", "rtx4090-half", "--service", "--name", "web", "--", "sh", "-c", "sleep 600", "mark-web")
    first = pids_of("mark-web")
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    again = wait_for(lambda: pids if (pids := pids_of("mark-web")) and pids != first else None)
    assert len(again) == len(first)
    wait_for(lambda: state_of(yard, "web") == "running")


def test_launches_that_are_sent_again_and_again_over_crashes_are_made_once(yard: RealYard) -> None:
    """Thirty clients, each with a key of its own, ask until they are answered, while the yard is killed twice."""
    total = 30
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        body = {
            "kind": "job",
            "slices": {"offer": "rtx4090-sixteenth"},
            "command": ["sh", "-c", "exit 0", f"mark-{number}"],
        }
        while number not in answers:
            headers = {"Authorization": f"Bearer {yard.token}", "Idempotency-Key": f"key-{number}"}
            try:
                answer = httpx.post(f"{yard.address}/v1/workloads", json=body, headers=headers, timeout=5)
            except httpx.HTTPError:
                threading.Event().wait(0.05)
                continue
            assert answer.status_code in {200, 201, 503}, answer.text
            if answer.status_code < 300:
                answers[number] = answer.json()["id"]

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(total)]
    for number, client in enumerate(clients):
        client.start()
        if number in {8, 20}:
            wait_for(lambda enough=number // 2: len(answers) >= enough)
            yard.kill()
            yard.up()
    for client in clients:
        client.join(60)
    assert len(set(answers.values())) == total
    made = wait_for(lambda: all_succeeded(yard))
    assert len(made) == total
    assert len([i for i in intervals(yard) if i["state"] == "active"]) == total


def all_succeeded(yard: RealYard) -> list[dict[str, str]] | None:
    found = yard.json("ps")
    return found if all(workload["state"] == "succeeded" for workload in found) else None


def test_a_full_disk_is_said_and_heals_by_itself(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here: run as root to try a full disk")
    yard = RealYard(tmp_path, "--simulate", "8xRTX4090", "--runtime", "process", "--state", str(small / "state"))
    try:
        yard.up()
        yard.run("run", "--offer", "rtx4090-half", "--instance", "--name", "box", "--", "sleep", "600")
        with (small / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        refused = None
        for number in range(400):
            done = yard.cli(
                "run",
                "--offer",
                "rtx4090-sixteenth",
                "--job",
                "--no-wait",
                "--name",
                f"n{number}",
                "--json",
                "--",
                "true",
            )
            if done.returncode != 0:
                refused = done
                break
        assert refused is not None
        assert refused.returncode == 8, refused.stderr
        assert "Traceback" not in refused.stderr
        assert state_of(yard, "box") == "running"
        (small / "filler").unlink()
        wait_for(lambda: yard.cli("run", "--offer", "rtx4090-half", "--job", "--", "true").returncode == 0)
    finally:
        yard.close()
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_down_with_stop_workloads_leaves_no_process(yard: RealYard, tmp_path: Path) -> None:
    yard.run("run", "--offer", "rtx4090-half", "--instance", "--", "sleep", "600")
    yard.run("down", "--stop-workloads")
    assert yard.server is not None
    yard.server.wait(30)
    wait_for(
        lambda: not processes_below(tmp_path),
        lambda: [Path(f"/proc/{p}/cmdline").read_bytes() for p in processes_below(tmp_path)],
    )
    assert json.loads((yard.state / "yard.json").read_text()) if (yard.state / "yard.json").exists() else True


def test_the_yards_own_log_holds_no_token(tmp_path: Path) -> None:
    """A failure of ours is logged with where it happened and without what was in hand there."""
    log = tmp_path / "own.log"
    program = f"""
import logging
from pathlib import Path
from gpuyard.control.server_process import log_to
log_to(Path({str(log)!r}))
def fails(token):
    raise RuntimeError("broken")
try:
    fails("gy_secret")
except RuntimeError as error:
    logging.getLogger("x").exception("request_failed", exc_info=error)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    told = log.read_text()
    assert "RuntimeError" in told
    assert "fails" in told
    assert "gy_secret" not in told
