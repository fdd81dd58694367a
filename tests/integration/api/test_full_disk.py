"""A disk without room: every change is refused in words, nothing is half done, and all goes on once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.model.errors import YardError
from hand_driven_yard import NOON_US

ROOM_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds four mebibytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def api(small_disk: Path) -> Iterator[ApiInHand]:
    """A yard on the small disk with two workloads that run."""
    api = ApiInHand(small_disk)
    for name in ("one", "two"):
        assert api.alice.post("/v1/workloads", json={**QUARTER, "name": name}).status_code == 201
    api.hand.settle()
    yield api
    api.close()


def fill(folder: Path) -> Path:
    """Leaves not a byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


CHANGES: list[tuple[str, str, str, Any]] = [
    ("alice", "POST", "/v1/workloads", {**QUARTER, "name": "three", "environment": {"FILL": "x" * 60_000}}),
    ("alice", "POST", "/v1/workloads/one/stop", None),
    ("alice", "DELETE", "/v1/workloads/two", None),
    ("operator", "POST", "/v1/tenants", {"name": "carol", "credit": "5"}),
    ("operator", "POST", "/v1/tenants/alice/credit", {"amount": "5"}),
    ("operator", "POST", "/v1/tokens", {"user": "carol", "tenant": "alice"}),
    ("operator", "DELETE", "/v1/tokens/tk-2", None),
]


def test_every_change_is_refused_on_a_full_disk_and_made_once_there_is_room(
    api: ApiInHand, small_disk: Path, problem_in_both: Callable[..., str]
) -> None:
    use_up_the_log(api, small_disk)
    before = api.everything()
    ballast = fill(small_disk)
    for who, method, path, body in CHANGES:
        client = getattr(api, who)
        problem_in_both(
            lambda headers, c=client, m=method, p=path, b=body: c.request(m, p, json=b, headers=headers),
            507,
            "storage_full",
        )
        assert api.everything() == before
    assert api.alice.get("/v1/workloads/one").json()["state"] == "running"
    assert api.bob.get("/v1/whoami").status_code == 200
    ballast.unlink()
    for who, method, path, body in CHANGES:
        assert getattr(api, who).request(method, path, json=body).status_code < 300, path
    assert api.bob.get("/v1/whoami").status_code == 401
    api.hand.settle()
    assert api.alice.get("/v1/workloads/one").json()["state"] == "stopped"
    assert {item["name"] for item in api.alice.get("/v1/workloads").json()["items"]} == {"one", "three"}


def use_up_the_log(api: ApiInHand, folder: Path) -> None:
    """SQLite writes into the room that its log once took without asking the disk: that room is given back."""
    with api.hand.yard.store.read() as c:
        c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def run_on(api: ApiInHand) -> None:
    """Ten minutes of passes."""
    for _ in range(20):
        api.hand.clock.advance(30_000_000)
        api.hand.loops.pass_once()


def test_the_loops_say_that_the_disk_is_full_and_bill_every_second_once_there_is_room(
    api: ApiInHand, small_disk: Path
) -> None:
    use_up_the_log(api, small_disk)
    ballast = fill(small_disk)
    with pytest.raises(YardError) as refused:
        run_on(api)
    assert refused.value.code == "storage_full"
    ballast.unlink()
    api.hand.clock.advance(30_000_000)
    api.hand.settle()
    api.alice.post("/v1/workloads/one/stop")
    api.hand.settle()
    lease = api.alice.get("/v1/workloads/one").json()["leases"][0]["id"]
    intervals = [item for item in api.alice.get("/v1/intervals").json()["items"] if item["lease_id"] == lease]
    billed = sum(item["duration_us"] for item in intervals if item["state"] == "active")
    assert billed == api.hand.clock.now_us() - NOON_US


def test_a_launch_with_a_key_that_the_full_disk_refused_can_be_sent_again(api: ApiInHand, small_disk: Path) -> None:
    use_up_the_log(api, small_disk)
    ballast = fill(small_disk)
    headers = {"Idempotency-Key": "again"}
    body = {**JOB, "environment": {"FILL": "x" * 60_000}}
    assert api.alice.post("/v1/workloads", json=body, headers=headers).status_code == 507
    ballast.unlink()
    first = api.alice.post("/v1/workloads", json=body, headers=headers)
    again = api.alice.post("/v1/workloads", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
