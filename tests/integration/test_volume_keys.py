"""Workloads wait for the keys of their volumes and take up nothing meanwhile; keys are seen by nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.engines.volumes.simulated import SimulatedVolumes
from gpuyard.model.states import LeaseState
from gpuyard.model.tenants import Role
from gpuyard.store import leases, residency

KEY, OTHER = "key-of-alice-" + "0" * 20, "another-key-" + "1" * 20
MOUNT = {"mounts": [{"volume": "data", "path": "data"}]}
DATA = VolumeId("tn-alice", "data")


class KeptVolumes(SimulatedVolumes):
    """What is open stays so when the yard is killed, and no key does."""

    def lose_keys(self) -> None:
        for held in self._volumes.values():
            held.has_key, held.given_at = False, -1000.0


class Api(ApiInHand):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.volumes = KeptVolumes(lambda: self.hand.clock.at_us / 1_000_000)
        self.hand.yard.engine.volumes = self.volumes

    def kill(self) -> None:
        self.hand.kill()
        self.volumes.lose_keys()
        self.hand.yard.engine.volumes = self.volumes

    def launch(self, body: dict[str, Any], name: str = "box") -> str:
        answer = self.alice.post("/v1/workloads", json={**body, "name": name})
        assert answer.status_code == 201, answer.text
        self.hand.settle()
        return answer.json()["id"]

    def shown(self, workload: str) -> dict[str, Any]:
        return self.alice.get(f"/v1/workloads/{workload}").json()

    def lease_state(self, workload: str) -> LeaseState:
        with self.hand.yard.store.read() as c:
            return leases.of_workload(c, workload, include_ended=True)[-1].state


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.close()


@pytest.fixture
def locked(api: Api) -> Api:
    """A yard where alice's volume lacks its key."""
    assert api.alice.post("/v1/volumes", json={"name": "data", "key": KEY}).status_code == 201
    assert api.alice.post("/v1/volumes/data/lock").json()["state"] == "locked"
    return api


def test_a_launch_waits_for_the_key_without_slices_and_starts_once_it_is_given(locked: Api) -> None:
    box = locked.launch({**QUARTER, **MOUNT})
    assert locked.shown(box)["state"] == "pending"
    assert locked.shown(box)["reason_text"] == (
        "It waits: its volume data needs its key: give it with `gpuyard volumes unlock data --key FILE`."
    )
    assert locked.lease_state(box) is LeaseState.REQUESTED
    why = locked.alice.get(f"/v1/workloads/{box}/why").json()
    assert any("key" in line for line in why["lines"])
    answer = locked.alice.post("/v1/volumes/data/unlock", json={"key": KEY})
    assert answer.json() == {
        "name": "data", "tenant_id": "tn-alice", "encrypted": True, "state": "open", "used_by": ["box"],
    }  # fmt: skip
    locked.hand.settle()
    assert locked.shown(box)["state"] == "running"


def test_a_wrong_key_is_refused_in_the_readers_language_and_changes_nothing(locked: Api) -> None:
    for language, told in (("en", "This is not the key of the volume 'data'"), ("zh", "这不是卷 'data' 的密钥")):
        answer = locked.alice.post(
            "/v1/volumes/data/unlock", json={"key": OTHER}, headers={"Accept-Language": language}
        )
        assert answer.status_code == 403
        assert answer.json()["code"] == "volume_key_refused"
        assert told in answer.json()["detail"]
    assert not locked.volumes.is_open(DATA)


def test_a_volume_is_closed_and_its_key_forgotten_when_its_workload_has_stopped(api: Api) -> None:
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    box = api.launch({**QUARTER, **MOUNT})
    assert api.shown(box)["state"] == "running"
    assert api.alice.post("/v1/volumes/data/lock").json()["code"] == "volume_in_use"
    api.alice.post(f"/v1/workloads/{box}/stop")
    api.hand.settle()
    assert api.alice.get("/v1/volumes").json()["items"][0]["state"] == "locked"
    api.alice.post(f"/v1/workloads/{box}/start")
    api.hand.settle()
    assert api.shown(box)["state"] == "pending"
    api.alice.post("/v1/volumes/data/unlock", json={"key": KEY})
    api.hand.settle()
    assert api.shown(box)["state"] == "running"


def test_a_unit_goes_on_when_the_yard_was_killed_and_its_next_start_waits_for_the_key(api: Api) -> None:
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    box = api.launch({**QUARTER, **MOUNT, "restart": "always"})
    api.kill()
    api.hand.settle()
    assert api.volumes.is_open(DATA)
    (name,) = api.hand.running_names()
    api.volumes.lock(DATA)  # the machine was started anew: no mount is left
    api.hand.runtime.crash(name)
    api.hand.settle()
    api.hand.clock.advance(60_000_000)
    api.hand.settle()
    assert api.lease_state(box) is LeaseState.REQUESTED
    with api.hand.yard.store.read() as c:
        assert leases.of_workload(c, box)[-1].slices == ()
    app = api.app  # the same routes over the new yard
    app.state.yard = api.hand.yard
    api.alice.post("/v1/volumes/data/unlock", json={"key": KEY})
    api.hand.settle()
    assert len(api.hand.running_names()) == 1


def test_two_workloads_share_a_volume_which_stays_open_until_the_last_has_ended(api: Api) -> None:
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    api.launch({**JOB, **MOUNT}, "short")
    long = api.launch({**QUARTER, **MOUNT}, "long")
    api.hand.clock.advance(6_000_000)
    api.hand.settle()
    assert api.volumes.is_open(DATA)
    assert api.volumes.has_key(DATA)
    api.alice.delete(f"/v1/workloads/{long}")
    api.hand.settle()
    assert not api.volumes.is_open(DATA)
    assert not api.volumes.has_key(DATA)


def test_no_table_event_or_audit_entry_holds_a_key(api: Api) -> None:
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    api.alice.post("/v1/volumes/data/unlock", json={"key": OTHER})
    api.alice.put("/v1/volumes/data/key", json={"old": KEY, "new": OTHER})
    api.alice.post("/v1/volumes", json={"name": "data", "key": "short-" + KEY[:8]})
    api.hand.yard.authority.auditor.settle(api.hand.clock.now_us())
    told = repr(api.everything())
    assert "volume.key_changed" in told
    assert "ChangeVolumeKey" in told
    for secret in (KEY, OTHER, KEY[:20]):
        assert secret not in told


def test_a_key_that_is_no_line_is_refused_without_being_repeated(api: Api) -> None:
    for bad in ("short", "two\nlines" + KEY, "x" * 1001, ""):
        answer = api.alice.post("/v1/volumes", json={"name": "data", "key": bad})
        assert answer.status_code == 400
        assert bad == "" or bad not in answer.text
    answer = api.alice.post("/v1/volumes", json={"name": "data", "key": {"secret": KEY}})
    assert answer.status_code == 400
    assert KEY not in answer.text


def test_volumes_of_another_tenant_are_none(locked: Api) -> None:
    assert locked.bob.get("/v1/volumes").json()["items"] == []
    for method, path, body in (
        ("POST", "/v1/volumes/data/unlock", {"key": KEY}),
        ("PUT", "/v1/volumes/data/key", {"old": KEY, "new": OTHER}),
        ("POST", "/v1/volumes/data/lock", None),
        ("DELETE", "/v1/volumes/data", None),
    ):
        assert locked.bob.request(method, path, json=body).json()["code"] == "volume_not_found"
    assert locked.bob.post("/v1/volumes", json={"name": "data", "key": OTHER}).status_code == 201
    viewer = locked.client(locked.hand.tenant("alice"), Role.VIEWER)
    assert viewer.get("/v1/volumes").status_code == 200
    assert viewer.post("/v1/volumes/data/unlock", json={"key": KEY}).json()["code"] == "forbidden"


def test_a_policy_may_deny_the_keys_of_one_volume(locked: Api) -> None:
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "Rest", "Effect": "Allow", "Action": "*", "Resource": "*"},
            {"Sid": "NoKeys", "Effect": "Deny", "Action": "gpuyard:*Volume*", "Resource": "arn:aws:ec2::*:volume/data"},
        ],
    }  # fmt: skip
    assert locked.operator.put("/v1/policies/keys", json={"document": json.dumps(document)}).status_code == 200
    attached = {"policy": "keys", "kind": "project", "subject": "alice"}
    assert locked.operator.post("/v1/attachments", json=attached).status_code == 201
    locked.alice.post("/v1/volumes", json={"name": "more", "key": KEY})
    assert locked.alice.post("/v1/volumes/more/unlock", json={"key": KEY}).status_code == 200
    assert locked.alice.post("/v1/volumes/data/unlock", json={"key": KEY}).json()["code"] == "denied_by_policy"


def test_a_mount_that_must_be_encrypted_is_refused_where_the_volume_is_not(api: Api) -> None:
    mount = {"mounts": [{"volume": "data", "path": "data", "encrypted": True}]}
    answer = api.alice.post("/v1/workloads", json={**QUARTER, **mount})
    assert answer.json()["code"] == "volume_not_encrypted"
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    box = api.launch({**QUARTER, **mount})
    assert api.shown(box)["spec"]["mounts"] == [
        {"volume": "data", "path": "data", "read_only": False, "encrypted": True}
    ]


def test_a_deleted_volume_is_forgotten_with_the_class_that_it_lay_in(api: Api) -> None:
    api.alice.post("/v1/volumes", json={"name": "data", "key": KEY})
    with api.hand.yard.store.write() as c:
        residency.settle(c, "tn-alice", ["volume/data"], "eu", "eu-1", 1)
    box = api.launch({**QUARTER, **MOUNT})
    assert api.alice.delete("/v1/volumes/data").json()["code"] == "volume_in_use"
    api.alice.delete(f"/v1/workloads/{box}")
    api.hand.settle()
    assert api.alice.delete("/v1/volumes/data").status_code == 204
    with api.hand.yard.store.read() as c:
        assert residency.listing(c, "tn-alice") == []
    assert api.alice.delete("/v1/volumes/data").json()["code"] == "volume_not_found"
