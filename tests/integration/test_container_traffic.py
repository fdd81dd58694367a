"""A container's own counters against a real podman, and as the kernel may write them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuyard.engines.activity import Activity
from gpuyard.engines.container.runtime import ContainerRuntime
from gpuyard.engines.container.traffic import cpu_us_of, own_pid
from gpuyard.engines.interfaces import Traffic, traffic_of
from gpuyard.engines.runtime import Unit, UnitState
from gpuyard.model.names import new_id

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    9999      12    0    0    0     0          0         0     9999      12    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0
  eth1:18446744073709551615 1 0    0    0     0          0         0        7       1    0    0    0     0       0          0
"""


class HostClock:
    boot_id = "boot-a"

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def offset_us(self) -> int:
        return 0


def test_all_interfaces_but_the_one_to_itself_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "net" / "dev").write_text(DEV)
    assert traffic_of(7, proc=tmp_path) == Traffic(1000 + 2**64 - 1, 2007)
    assert traffic_of(7, loopback=True, proc=tmp_path) == Traffic(10_999 + 2**64 - 1, 12_006)
    assert traffic_of(8, proc=tmp_path) is None  # gone


@pytest.mark.parametrize(
    ("mode", "pid", "found"),
    [("bridge", 7, 7), ("slirp4netns", 7, 7), ("host", 7, None), ("container:ab", 7, None), ("ns:/x", 7, None), ("", 0, None)],
)  # fmt: skip
def test_a_network_that_is_shared_tells_nothing_of_one(mode: str, pid: int, found: int | None) -> None:
    assert own_pid({"HostConfig": {"NetworkMode": mode}, "State": {"Pid": pid}}) == found


def test_cpu_time_is_that_of_its_own_control_group_in_both_versions(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    (tmp_path / "7").mkdir()
    (groups / "a" / "b").mkdir(parents=True)
    (groups / "a" / "b" / "cpu.stat").write_text("usage_usec 123456\nuser_usec 1\n")
    (tmp_path / "7" / "cgroup").write_text("0::/a/b\n")
    assert cpu_us_of(7, tmp_path, groups) == 123_456
    (groups / "cpu,cpuacct" / "x").mkdir(parents=True)
    (groups / "cpu,cpuacct" / "x" / "cpuacct.usage").write_text("5000\n")
    (tmp_path / "7" / "cgroup").write_text("4:cpu,cpuacct:/x\n0::/a/b\n")
    assert cpu_us_of(7, tmp_path, groups) == 5
    for nobodys_own in ("0::/\n", "4:cpuacct:/\n", "rubbish\n", "0::/gone\n"):
        (tmp_path / "7" / "cgroup").write_text(nobodys_own)
        assert cpu_us_of(7, tmp_path, groups) is None


@pytest.fixture
def runtime(tmp_path: Path, container_engine: Any) -> Iterator[ContainerRuntime]:
    runtime = ContainerRuntime(tmp_path / "containers", HostClock(), container_engine.socket, True)
    yield runtime
    for name in runtime.observe():
        runtime.forget(name)
    runtime.close()


def unit(image: str, *command: str) -> Unit:
    return Unit(
        name=f"{new_id('ls', time.time_ns() // 1000)}-1",
        disk="disk-0",
        tenant_id="tn-a",
        command=command,
        image=image,
        environment={},
        secrets={},
        mounts=(),
        ports=(8080,),
        working_directory=None,
        cpu_milli=1000,
        memory_bytes=64 << 20,
        slices=(),
        simulated_cards=True,
    )


def until(done: Callable[[], bool]) -> None:
    for _ in range(200):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("never")


def state(runtime: ContainerRuntime, made: Unit) -> UnitState | None:
    seen = runtime.observe().get(made.name)
    return None if seen is None else seen.state


def fetched(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return len(answer.read())
    except OSError:
        return 0


@pytest.mark.containers
def test_what_a_container_sends_is_counted_from_its_own_interfaces(
    runtime: ContainerRuntime, container_engine: Any, tmp_path: Path
) -> None:
    made = unit(
        container_engine.image, "sh", "-c", "cd /workspace; head -c 300000 /dev/zero > f; exec httpd -f -p 8080"
    )
    runtime.start(made)
    until(lambda: state(runtime, made) is UnitState.RUNNING)
    runtime.observe()
    if "own_network" not in runtime.isolation.enforces:
        assert runtime.sent_bytes(made.name) is None  # the host's: absent, and not nothing
        assert runtime.activity(made.name).network_bytes is None
        return
    before = runtime.sent_bytes(made.name)
    assert before is not None
    host, port = runtime.observe()[made.name].ports[8080]
    until(lambda: fetched(f"http://{host}:{port}/f") == 300_000)
    until(lambda: bool(runtime.observe()) and (runtime.sent_bytes(made.name) or 0) >= before + 300_000)
    activity = runtime.activity(made.name)
    assert activity.network_bytes is not None
    assert activity.network_bytes >= before + 300_000
    later = ContainerRuntime(
        tmp_path / "containers", HostClock(), container_engine.socket, True
    )  # another yard process
    later.observe()
    assert (later.sent_bytes(made.name) or 0) >= before + 300_000
    later.close()
    last = runtime.sent_bytes(made.name)
    runtime.stop(made.name, 0)
    until(lambda: state(runtime, made) is UnitState.EXITED)
    assert (runtime.sent_bytes(made.name) or 0) >= (last or 0)  # as it stood when it was last seen
    assert runtime.activity(made.name) == Activity()
    runtime.forget(made.name)
    assert runtime.sent_bytes(made.name) is None
