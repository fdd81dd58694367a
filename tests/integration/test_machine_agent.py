"""A machine at work: whatever it is cut short at, it joins once, keeps who it is, and goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuyard.model.errors import YardError
from gpuyard.sdk import machine_joining
from gpuyard.sdk.machine_identity import MachineFolder
from gpuyard.texts import error_text
from machines_in_hand import Box, MachinesInHand, inventory


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[MachinesInHand]:
    yard = MachinesInHand(tmp_path)
    yield yard
    yard.close()


class Killed(BaseException):
    """kill -9: nothing between catches it."""


class Trip:
    """Dies at the n-th step, counted over everything that leaves a trace: what is written, and what is sent."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (httpx.Client, "request")):
            patch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def tripping(*arguments: Any, **named: Any) -> Any:
            self.step()
            done = call(*arguments, **named)
            self.step()
            return done

        return tripping

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed


@pytest.mark.slow
def test_killed_at_any_step_a_machine_joins_once_and_renews(
    yard: MachinesInHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.gate.renewals.burst = yard.app.state.joins.burst = 1000
    trip = Trip(monkeypatch)
    with yard.served() as url:
        for n in range(1000):
            name = f"rack{n}"
            yard.gate.wall = lambda: datetime.now(UTC) - timedelta(hours=11, minutes=30)
            box = Box(yard, MachineFolder(yard.root / name), has=inventory(f"GPU-{n}"))
            token = yard.invite(name)["token"]
            trip.left = n
            killed = again(lambda b=box, t=token, m=name: machine_joining.join(b.folder, url, t, m), box)
            yard.gate.wall = lambda: datetime.now(UTC)
            killed += again(lambda b=box: b.agent().round(), box)
            trip.left = None
            assert box.agent().round() == 15
            identity = box.folder.identity()
            assert identity is not None
            assert identity.ends - datetime.now(UTC) > timedelta(hours=22)  # it was renewed
            assert {path.stat().st_mode & 0o077 for path in box.folder.path.iterdir()} == {0}
            seen = yard.operator.get(f"/v1/machines/{name}").json()
            assert (seen["state"], seen["cards"], seen["late"]) == ("joined", 1, False)
            yard.operator.delete(f"/v1/machines/{name}")
            for agent in yard.agents:
                agent.close()
            if not killed:
                break
    assert n > 30, "the steps were not counted"


def again(work: Callable[[], object], box: Box) -> int:
    """Does it until it is done, as a supervisor would; how often it was killed. Whoever looks meanwhile sees a machine
    that has joined, or none."""
    killed = 0
    while True:
        try:
            work()
        except Killed:
            killed += 1
            box.folder.identity()
        except YardError as error:
            if error.code != "machine_already_joined":
                raise
            return killed
        else:
            return killed


def test_a_full_disk_costs_no_heartbeat_and_no_identity(yard: MachinesInHand, tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        with yard.served() as url:
            _on_a_full_disk(yard, disk, url)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _on_a_full_disk(yard: MachinesInHand, disk: Path, url: str) -> None:
    box = Box(yard, MachineFolder(disk / "machine"))
    token = yard.invite("rack2")["token"]
    yard.gate.wall = lambda: datetime.now(UTC) - timedelta(hours=11, minutes=30)
    (disk / "machine").mkdir()
    ballast = fill(disk)
    with pytest.raises(YardError, match="machine_state_unusable") as caught:
        machine_joining.join(box.folder, url, token, "rack2")
    assert "No space left" in error_text(caught.value.code, "en", caught.value.params)
    ballast.unlink()
    machine_joining.join(box.folder, url, token, "rack2")
    yard.gate.wall = lambda: datetime.now(UTC)
    ballast, first = fill(disk), box.until
    agent = box.agent()
    assert agent.round() == 15
    assert [key for key, _ in box.said] == ["not_renewed"]
    assert (box.until, agent.failures) == (first, 0)
    ballast.unlink()
    agent.round()
    assert [key for key, _ in box.said] == ["not_renewed", "renewed"]
    assert box.until > first


def fill(folder: Path) -> Path:
    """Leaves not a byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def test_a_yard_that_is_away_is_asked_ever_more_slowly_and_told_of_when_it_is_back(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    file = box.folder.path / "yard.json"
    whole = file.read_text()
    file.write_text(whole.replace(yard.gate.address, "https://127.0.0.1:9"))
    agent = box.agent()
    pauses = [agent.round() for _ in range(12)]
    assert all(2 ** min(n, 5) / 2 <= pause <= min(2**n, 60) for n, pause in enumerate(pauses))
    assert len(set(pauses[-4:])) > 1  # a rack does not come back in step
    file.write_text(whole)
    agent.round()
    assert [key for key, _ in box.said] == ["tries_again"] * 12 + ["back"]


def test_a_yard_without_room_is_tried_again(yard: MachinesInHand, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuyard.control.machines import reporting

    box = yard.joined("rack2")
    agent = box.agent()
    agent.round()

    def full(*_: object) -> None:
        raise YardError("storage_full", what="yard.db")

    monkeypatch.setattr(reporting.machines, "tell", full)
    yard.hand.clock.advance(61_000_000)
    assert agent.round() <= 1
    monkeypatch.undo()
    assert agent.round() == 15


def test_cards_that_the_yard_does_not_take_cost_no_heartbeat(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    box.has = inventory("GPU-\x1b")
    agent, at_s = box.agent(), [0.0]
    agent.monotonic_s = lambda: at_s[0]
    for _ in range(12):
        assert agent.round() == 15
        at_s[0] += 15
    assert [key for key, _ in box.said] == ["not_told"]  # once, however often it is tried again
    assert yard.operator.get("/v1/machines/rack2").json()["late"] is False
    box.has = inventory("GPU-1")
    at_s[0] += 60
    agent.round()
    assert yard.operator.get("/v1/machines/rack2").json()["cards"] == 1


def test_one_machine_works_in_a_folder(tmp_path: Path) -> None:
    one, two = (MachineFolder(tmp_path / "machine") for _ in range(2))
    one.hold()
    with pytest.raises(YardError, match="machine_running"):
        two.hold()
    one.release()
    two.hold()
    two.release()


def test_what_is_no_identity_is_refused_in_words(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    for name in ("yard.json", "identity.pem"):
        file = box.folder.path / name
        whole = file.read_bytes()
        file.write_bytes(b"{}")
        with pytest.raises(YardError, match="machine_state_unusable"):
            box.agent().round()
        file.write_bytes(whole)
    (box.folder.path / "identity.pem").unlink()
    with pytest.raises(YardError, match="machine_not_joined"):
        box.agent().round()


def test_a_join_is_not_sent_to_whom_the_token_does_not_name(yard: MachinesInHand, tmp_path: Path) -> None:
    folder = MachineFolder(tmp_path / "machine")
    pinned = "gyj_" + "a" * 43 + "." + "00" * 32
    with yard.served() as url:
        for where, token in ((url, pinned), ("http://192.0.2.7:8470", "gyj_" + "a" * 43 + ".public")):
            with pytest.raises(YardError, match="join_in_clear"):
                machine_joining.join(folder, where, token, "rack2")
    assert yard.audited() == []  # nobody was asked
    with pytest.raises(YardError, match="join_token_invalid"):
        machine_joining.join(folder, "https://yard.example", "gy_" + "a" * 43, "rack2")


def test_a_certificate_for_another_key_or_by_nobody_known_is_not_saved(yard: MachinesInHand) -> None:
    box, other = yard.joined("rack2"), yard.joined("rack3")
    before = (box.folder.path / "identity.pem").read_bytes()
    theirs = (other.folder.path / "identity.pem").read_text()
    identity = box.folder.identity()
    assert identity is not None
    with pytest.raises(YardError, match="another key"):
        box.folder.save(identity.joined, box.folder.pending_key(), theirs[theirs.index("-----BEGIN CERT") :])
    assert (box.folder.path / "identity.pem").read_bytes() == before


def test_who_holds_a_copy_of_a_key_does_not_stay_unseen(yard: MachinesInHand) -> None:
    """Whoever renews first ends the other's certificate, and that one's next call tells the operator."""
    box = yard.joined("rack2")
    thief = Box(yard, MachineFolder(yard.root / "thief"))
    thief.folder.path.mkdir()
    for path in box.folder.path.iterdir():
        (thief.folder.path / path.name).write_bytes(path.read_bytes())
    box.agent().round()
    with thief.client() as client:
        from gpuyard.sdk.machine_identity import signing_request

        request = signing_request(thief.folder.pending_key(), "rack2")
        thief.save(client.post("/v1/machine/renew", json={"request": request}).json())
    with thief.client() as client:
        assert client.get("/v1/machine").status_code == 200
    with pytest.raises(YardError, match="superseded"):
        box.agent().round()
    (told,) = yard.events("machine.refused")
    assert (told.subject, told.data["because"]) == ("rack2", "superseded")
