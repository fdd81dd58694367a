"""What engines are told and how their answers are read, where no engine is needed to tell."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from gpuyard.engines.container.creation import Bind, Means, docker_body, limits, mount_target, podman_body
from gpuyard.engines.container.images import is_full_reference
from gpuyard.engines.container.launching import lesser
from gpuyard.engines.container.observing import Instant, saw_ended, saw_running
from gpuyard.engines.container.records import Records, UnitRecord
from gpuyard.engines.container.sockets import candidates
from gpuyard.engines.runtime import Unit
from gpuyard.model.slices import Guarantee, Slice, SliceShape

SECOND_NS = 1_000_000_000
# The machine booted at 12:00:00 UTC and it is 12:10:00 now.
NOW = Instant("boot-b", 600 * SECOND_NS, 1_795_435_800 * SECOND_NS, 1_795_435_200 * SECOND_NS)


def unit(**changes: Any) -> Unit:
    shape = SliceShape(1 << 30, 250_000)
    fields: dict[str, Any] = {
        "name": "ls-1-1",
        "disk": "wl-1-0",
        "tenant_id": "tn-1",
        "command": ("train",),
        "image": "localhost/a:b",
        "environment": {},
        "secrets": {"TOKEN": "t"},
        "mounts": (),
        "ports": (8080,),
        "working_directory": None,
        "cpu_milli": 1500,
        "memory_bytes": 1 << 30,
        "slices": (Slice("ls-1", "GPU-b", shape, Guarantee.NONE), Slice("ls-1", "GPU-a", shape, Guarantee.NONE)),
        "simulated_cards": False,
    }
    return Unit(**{**fields, **changes})


def container(started: str, finished: str, status: str = "exited") -> dict[str, Any]:
    state = {"StartedAt": started, "FinishedAt": finished, "Status": status, "ExitCode": 0, "OOMKilled": False}
    return {"Id": "none", "State": state, "NetworkSettings": {"Ports": {}}}


def record(boot_id: str = "boot-b", **changes: Any) -> UnitRecord:
    return UnitRecord("ls-1-1", "wl-1-0", "tn-1", boot_id, asked_ns=100 * SECOND_NS, **changes)


def test_docker_is_asked_for_real_cards_by_cdi_and_for_simulated_ones_not_at_all() -> None:
    body = docker_body(unit(), {}, [], Means(), {})
    assert body["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]}
    ]
    assert "DeviceRequests" not in docker_body(unit(simulated_cards=True), {}, [], Means(), {})["HostConfig"]


def test_both_engines_are_asked_for_the_slice_after_the_cards_because_what_comes_later_wins() -> None:
    shape = SliceShape(1 << 30, 250_000)
    held = unit(slices=(Slice("ls-1", "GPU-z", shape, Guarantee.COOPERATIVE),))
    expected = ["nvidia.com/gpu=GPU-z", "gpuyard.dev/slice=ls-1-1"]
    docker, podman = (say(held, {}, [], Means(), {}) for say in (docker_body, podman_body))
    assert docker["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == expected
    assert [device["path"] for device in podman["devices"]] == expected


def test_both_engines_are_asked_for_the_same_confinement() -> None:
    binds = [Bind("/state/disks/d", "/workspace"), Bind("/state/volumes/v", "/data", read_only=True, shared=True)]
    docker, podman = (say(unit(), {"l": "1"}, binds, Means(), {}) for say in (docker_body, podman_body))
    host = docker["HostConfig"]
    assert host["CapAdd"] == podman["cap_add"]
    assert host["ReadonlyRootfs"] is podman["read_only_filesystem"] is True
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert podman["no_new_privileges"] is True
    assert host["NanoCpus"] == 1_500_000_000
    assert podman["resource_limits"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert host["Memory"] == host["MemorySwap"] == podman["resource_limits"]["memory"]["swap"] == 1 << 30
    assert host["Binds"] == ["/state/disks/d:/workspace:rw,Z", "/state/volumes/v:/data:ro,z"]
    assert [mount["destination"] for mount in podman["mounts"] if mount["type"] == "bind"] == ["/workspace", "/data"]
    assert dict(pair.split("=", 1) for pair in docker["Env"]) == podman["env"]


def test_nobody_is_given_larger_ulimits_than_the_yard_itself_has() -> None:
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        assert hard == resource.RLIM_INFINITY or limits(Means())[name] <= hard


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("docker.io/library/busybox:1", True),
        ("registry:5000/a", True),
        ("localhost:5000/a", True),
        ("localhost/a", False),
        ("busybox", False),
        ("library/busybox", False),
    ],
)
def test_only_a_reference_with_its_registry_is_fetched(image: str, full: bool) -> None:
    assert is_full_reference(image) is full


def test_a_relative_mount_lies_below_the_disk() -> None:
    assert (mount_target("models"), mount_target("/data")) == ("/workspace/models", "/data")


def test_what_a_machine_cannot_do_is_gone_without() -> None:
    no_init = "container create: container-init binary not found on the host: stat /x: no such file or directory"
    no_rlimit = "crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied"
    no_bridge = 'plugin type="bridge" failed (add): failed to find plugin "bridge" in path [/x]'
    assert lesser(Means(), no_init) == Means(init=False)
    assert lesser(Means(), no_rlimit) == Means(small_limits=True)
    assert lesser(Means(), no_bridge) == Means(host_network=True)
    assert lesser(Means(host_network=True), no_bridge) is None


@pytest.mark.parametrize(
    "message",
    [
        'runc: runc create failed: unable to start container process: exec: "netavark": stat netavark: no such file',
        "unable to find user cni: no matching entries in passwd file",
        'workdir "/workspace/pasta failed" does not exist on container x',
        "failed to set up container networking: driver failed: Bind for 127.0.0.1:1 failed: port is already allocated",
    ],
)
def test_words_that_a_tenant_chose_do_not_take_the_network_of_its_own_away(message: str) -> None:
    assert lesser(Means(), message) is None


def test_an_end_in_this_boot_is_measured_back_from_now() -> None:
    ended = record(started_ns=200 * SECOND_NS, seen_ns=250 * SECOND_NS)
    saw_ended(ended, container("2026-11-23T12:03:20Z", "2026-11-23T12:08:20Z"), NOW)
    assert (ended.ended_ns, ended.recorded, ended.reason) == (500 * SECOND_NS, True, "exited")


def test_a_step_of_the_wall_clock_moves_no_end_before_the_last_sign_of_life_nor_after_now() -> None:
    early = record(started_ns=200 * SECOND_NS, seen_ns=550 * SECOND_NS)
    saw_ended(early, container("2026-11-23T12:03:20Z", "2026-11-23T12:03:21Z"), NOW)
    assert early.ended_ns == 550 * SECOND_NS
    late = record(started_ns=200 * SECOND_NS, seen_ns=250 * SECOND_NS)
    saw_ended(late, container("2026-11-23T12:03:20Z", "2026-11-23T19:00:00Z"), NOW)
    assert late.ended_ns == 600 * SECOND_NS


def test_an_end_before_the_reboot_counts_on_the_old_boots_clock() -> None:
    ended = record("boot-a", started_ns=7000 * SECOND_NS, seen_ns=7010 * SECOND_NS)
    saw_ended(ended, container("2026-11-23T11:00:00Z", "2026-11-23T11:00:30Z"), NOW)
    assert (ended.boot_id, ended.ended_ns, ended.recorded) == ("boot-a", 7030 * SECOND_NS, True)


def test_an_end_stamped_after_the_reboot_is_no_record_of_the_end() -> None:
    ended = record("boot-a", started_ns=7000 * SECOND_NS, seen_ns=7010 * SECOND_NS)
    saw_ended(ended, container("2026-11-23T11:00:00Z", "2026-11-23T12:00:05Z"), NOW)
    assert (ended.ended_ns, ended.recorded, ended.reason) == (7010 * SECOND_NS, False, "supervisor_lost")


def test_a_start_is_not_before_it_was_asked_for() -> None:
    running = record()
    saw_running(running, container("2026-11-23T09:00:00Z", "0001-01-01T00:00:00Z", "running"), NOW)
    assert (running.started_ns, running.seen_ns) == (100 * SECOND_NS, 100 * SECOND_NS)


def test_a_record_that_was_cut_short_is_none_and_a_whole_one_is_read_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    kept = record(ports={"80": ("127.0.0.1", 20_000)})
    records.save(kept)
    (tmp_path / "ls-2-1.json").write_text('{"name": "ls-')
    assert Records(tmp_path).all() == {"ls-1-1": kept}
    records.drop("ls-1-1")
    records.drop("ls-1-1")
    assert [file for file in tmp_path.iterdir() if "ls-1" in file.name] == []


def test_the_usual_places_are_looked_at_only_where_the_environment_names_none() -> None:
    assert candidates({"XDG_RUNTIME_DIR": "/run/user/7"}) == [
        Path("/run/podman/podman.sock"),
        Path("/run/user/7/podman/podman.sock"),
        Path("/var/run/docker.sock"),
    ]
    assert candidates({"DOCKER_HOST": "tcp://10.0.0.1:2375", "XDG_RUNTIME_DIR": "/run/user/7"}) == []
