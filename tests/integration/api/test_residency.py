"""Volumes, disks and what lies on them stay in their region's class: at launch, at start, and when they are mounted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import ApiInHand
from gpuyard.control.fleet_watch import update_fleet
from gpuyard.control.residency import data_may_move
from gpuyard.hardware.simulated import SimulatedProbe, parse_spec, simulated_node
from gpuyard.store import audit


class Standing:
    """Two nodes, whose regions a test may change: the 4090s stand in `here`, the H100 in `there`."""

    name = "simulated"

    def __init__(self, here: str | None, there: str | None) -> None:
        self.here, self.there = here, there

    def probe(self) -> Any:
        nodes = (
            simulated_node("one", parse_spec("2xRTX4090"), region=self.here),
            simulated_node("two", parse_spec("1xH100"), region=self.there),
        )
        return SimulatedProbe(nodes).probe()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    stand(api, "eu-west", "us-east")
    for name, regions in (("eu", ["eu-west", "eu-north"]), ("us", ["us-east"])):
        assert api.operator.put(f"/v1/residency/classes/{name}", json={"regions": regions}).status_code == 204
    yield api
    api.close()


def stand(api: ApiInHand, here: str | None, there: str | None) -> None:
    api.hand.yard.probes = (Standing(here, there),)
    update_fleet(api.hand.yard, api.hand.clock.now_us())


def launch(api: ApiInHand, name: str, model: str | None, volume: str | None = "data") -> Any:
    slices = {"memory_bytes": 1 << 30, "compute_ppm": 100_000} | ({"card_model": model} if model else {})
    mounts = [{"volume": volume, "path": "data"}] if volume else []
    body = {"kind": "instance", "name": name, "slices": slices, "mounts": mounts}
    made = api.alice.post("/v1/workloads", json=body)
    api.hand.settle()
    return made


def state(api: ApiInHand, name: str) -> str:
    return str(api.alice.get(f"/v1/workloads/{name}").json()["state"])


def refused(answer: Any) -> tuple[str, str]:
    assert answer.json()["code"] == "outside_residency", answer.text
    assert answer.status_code == 403
    return answer.json()["params"]["data"], answer.json()["params"]["why"]


def homes(api: ApiInHand) -> dict[str, str]:
    found = api.alice.get("/v1/residency").json()["data"]
    return {one["data"].split("/")[0] + "/" + one["data"].split("/")[1][:4]: one["residency_class"] for one in found}


def test_a_volume_belongs_to_the_class_where_it_was_first_mounted_and_stays_there(api: ApiInHand) -> None:
    assert launch(api, "first", "RTX4090").status_code == 201
    assert state(api, "first") == "running"
    assert homes(api)["volume/data"] == "eu"
    assert launch(api, "second", "RTX4090").status_code == 201
    assert refused(launch(api, "third", "H100")) == ("volume/data", "other_class")
    assert refused(launch(api, "any", None)) == ("volume/data", "other_class")
    assert launch(api, "other", "H100", "elsewhere").status_code == 201
    assert refused(launch(api, "fourth", "RTX4090", "elsewhere")) == ("volume/elsewhere", "other_class")


def test_another_tenants_volume_of_that_name_is_another_volume(api: ApiInHand) -> None:
    assert launch(api, "first", "RTX4090").status_code == 201
    body = {"kind": "instance", "slices": {"offer": "h100-quarter"}, "mounts": [{"volume": "data", "path": "d"}]}
    assert api.bob.post("/v1/workloads", json=body).status_code == 201


def test_a_stopped_workload_starts_only_where_its_disk_may_lie(api: ApiInHand) -> None:
    assert launch(api, "first", "RTX4090", None).status_code == 201
    assert api.alice.post("/v1/workloads/first/stop").status_code == 202
    api.hand.settle()
    stand(api, "us-east", "us-east")
    data, why = refused(api.alice.post("/v1/workloads/first/start"))
    assert (data.startswith("disk/wl-"), why) == (True, "other_class")
    stand(api, "eu-north", "us-east")
    assert api.alice.post("/v1/workloads/first/start").status_code == 202
    api.hand.settle()
    assert state(api, "first") == "running"


def test_a_region_without_a_class_takes_no_data(api: ApiInHand) -> None:
    stand(api, None, "mars")
    assert refused(launch(api, "first", "RTX4090"))[1] == "region_unclassed"
    assert refused(launch(api, "second", "H100"))[1] == "region_unclassed"


def test_what_was_launched_before_is_held_when_it_is_mounted(api: ApiInHand) -> None:
    """Both launches are right when they are asked for; the first that runs decides where the volume is."""
    slices = {"memory_bytes": 1 << 30, "compute_ppm": 100_000}
    for name, model in (("one", "RTX4090"), ("two", "H100")):
        body = {"kind": "instance", "name": name, "slices": {**slices, "card_model": model}}
        made = api.alice.post("/v1/workloads", json={**body, "mounts": [{"volume": "data", "path": "d"}]})
        assert made.status_code == 201
    api.hand.settle()
    api.hand.clock.advance(60_000_000)
    api.hand.settle()
    running = [name for name in ("one", "two") if state(api, name) == "running"]
    assert len(running) == 1
    assert homes(api)["volume/data"] == {"one": "eu", "two": "us"}[running[0]]
    assert len([unit for unit in api.hand.runtime.live().values() if unit.mounts]) == 1


def test_nothing_is_moved_where_nodes_stand_in_several_classes(api: ApiInHand) -> None:
    assert not data_may_move(api.hand.yard)
    stand(api, "eu-west", "eu-north")
    assert data_may_move(api.hand.yard)
    stand(api, "eu-west", None)
    assert not data_may_move(api.hand.yard)


def test_each_decision_is_in_the_audit_log(api: ApiInHand) -> None:
    launch(api, "first", "RTX4090")
    launch(api, "second", "H100")
    api.hand.settle()
    with api.hand.yard.store.read() as c:
        entries = [json.loads(line) for line in audit.leaves(c, 0, audit.size(c))]
    mounted = [one for one in entries if one["action"] == "gpuyard:MountData"]
    assert [(one["allowed"], one["statements"]) for one in mounted] == [(True, ["residency-class/eu"])]
    denied = [one for one in entries if one["because"] == "other_class"]
    assert [(one["action"], one["allowed"]) for one in denied] == [("ec2:RunInstances", False)]


def test_a_removed_workloads_disk_has_no_home_and_its_volume_keeps_one(api: ApiInHand) -> None:
    launch(api, "first", "RTX4090")
    assert set(homes(api)) == {"disk/wl-1", "volume/data"} or len(homes(api)) == 2
    assert api.alice.delete("/v1/workloads/first").status_code == 202
    api.hand.settle()
    assert homes(api) == {"volume/data": "eu"}


def test_a_region_is_in_one_class_and_only_operators_say_in_which(api: ApiInHand) -> None:
    twice = api.operator.put("/v1/residency/classes/asia", json={"regions": ["us-east"]})
    assert (twice.status_code, twice.json()["code"]) == (400, "invalid_request")
    assert api.alice.put("/v1/residency/classes/eu", json={"regions": []}).status_code == 403
    assert api.bob.get("/v1/residency").json()["data"] == []
    assert api.bob.get("/v1/residency?tenant=alice").status_code == 404


def test_without_classes_nothing_is_asked_or_written(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    assert launch(api, "first", "RTX4090").status_code == 201
    assert state(api, "first") == "running"
    assert api.operator.get("/v1/residency").json() == {"classes": {}, "data": []}
    api.close()
