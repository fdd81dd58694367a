"""The container runtime against a real podman: what only containers do, beside the contract that all runtimes keep."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encrypted_in_hand import must_have_gocryptfs
from gpuyard.engines.container.api import EngineApi, EngineGone
from gpuyard.engines.container.runtime import ContainerRuntime
from gpuyard.engines.container.sockets import PrivatePodman, find_socket
from gpuyard.engines.runtime import Observation, Unit, UnitState
from gpuyard.engines.volumes import gocryptfs
from gpuyard.engines.volumes.encrypted import EncryptedVolumes
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.model.workloads import Mount

pytestmark = pytest.mark.containers


class HostClock:
    """This machine's clock, of a boot with any name."""

    def __init__(self, boot_id: str = "boot-a") -> None:
        self.boot_id = boot_id

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def offset_us(self) -> int:
        return 0


@pytest.fixture(params=["podman's own words", "docker's words"])
def words(request: pytest.FixtureRequest) -> bool:
    return request.param == "podman's own words"


@pytest.fixture
def root(tmp_path: Path, container_engine: Any) -> Iterator[Path]:
    yield tmp_path / "containers"
    runtime = ContainerRuntime(tmp_path / "containers", HostClock(), container_engine.socket, True)
    for name in runtime.observe():
        runtime.forget(name)
    runtime.close()


@pytest.fixture
def runtime(root: Path, container_engine: Any) -> Iterator[ContainerRuntime]:
    runtime = ContainerRuntime(root, HostClock(), container_engine.socket, True)
    yield runtime
    runtime.close()


_numbers = iter(range(10**6))


@pytest.fixture
def make(container_engine: Any) -> Callable[..., Unit]:
    def unit(*command: str, **changes: Any) -> Unit:
        plain = Unit(
            name=f"ls-test{next(_numbers)}-1",
            disk="disk-0",
            tenant_id="tn-a",
            command=command,
            image=container_engine.image,
            environment={},
            secrets={},
            mounts=(),
            ports=(),
            working_directory=None,
            cpu_milli=1000,
            memory_bytes=64 << 20,
            slices=(),
            simulated_cards=True,
        )
        return replace(plain, **changes)

    return unit


def seen(runtime: ContainerRuntime, name: str, state: UnitState, within_s: float = 30.0) -> Observation:
    until = time.monotonic() + within_s
    while True:
        found = runtime.observe().get(name)
        if found is not None and found.state is state:
            return found
        assert time.monotonic() < until, f"{name} is {found}, not {state}"
        time.sleep(0.02)


def output(runtime: ContainerRuntime, name: str) -> str:
    async def collect() -> str:
        return "\n".join([line.text async for line in runtime.logs(name)])

    return asyncio.run(collect())


def run(runtime: ContainerRuntime, unit: Unit) -> tuple[Observation, str]:
    runtime.start(unit)
    ended = seen(runtime, unit.name, UnitState.EXITED)
    return ended, output(runtime, unit.name)


def test_a_unit_is_confined_to_its_disk_and_has_no_powers(
    root: Path, container_engine: Any, make: Callable[..., Unit], words: bool
) -> None:
    runtime = ContainerRuntime(root, HostClock(), container_engine.socket, words)
    script = (
        "pwd; echo home=$HOME tz=$TZ; touch /workspace/mine && echo disk-ok; touch /tmp/t && echo tmp-ok;"
        " touch /etc/x 2>/dev/null || echo root-closed; grep -E 'NoNewPrivs|CapBnd|Seccomp:' /proc/self/status;"
        " ls /workspace; mount -t tmpfs none /mnt 2>/dev/null || echo no-mount; ulimit -n; cat /proc/1/comm"
    )
    ended, text = run(runtime, make("sh", "-c", script))
    runtime.close()

    assert ended.exit_code == 0
    assert "/workspace\nhome=/workspace tz=UTC\ndisk-ok\ntmp-ok\nroot-closed" in text
    assert "NoNewPrivs:\t1" in text
    assert "Seccomp:\t2" in text
    assert "CapBnd:\t00000000000004fb" in text  # chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind
    assert "no-mount" in text
    assert (root / "disks" / "disk-0" / "mine").exists()


def test_limits_reach_the_kernel(root: Path, container_engine: Any, make: Callable[..., Unit], words: bool) -> None:
    runtime = ContainerRuntime(root, HostClock(), container_engine.socket, words)
    unit = make("sleep", "60", cpu_milli=250, memory_bytes=96 << 20)
    runtime.start(unit)
    seen(runtime, unit.name, UnitState.RUNNING)
    api = EngineApi(container_engine.socket)
    container = api.inspect(unit.name)
    api.close()
    runtime.close()
    assert container is not None
    host = container["HostConfig"]
    assert host["Memory"] == 96 << 20
    assert host["MemorySwap"] == 96 << 20
    assert host["PidsLimit"] == 4096
    assert host["NanoCpus"] == 250_000_000
    assert host["ReadonlyRootfs"] is True
    assert container["HostConfig"]["Privileged"] is False


def test_an_image_that_runs_as_another_user_can_write_to_its_disk(
    runtime: ContainerRuntime, make: Callable[..., Unit], container_engine: Any
) -> None:
    unit = make("sh", "-c", "id -u; echo x > kept; cat kept", image=container_engine.image_of_a_user)
    ended, text = run(runtime, replace(unit, working_directory="a/b"))
    assert (ended.exit_code, text) == (0, "1000\nx")


def test_an_encrypted_volume_is_written_by_any_user_of_an_image_and_read_by_the_next_unit(
    runtime: ContainerRuntime, root: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    must_have_gocryptfs()
    volume, volumes = VolumeId("tn-a", "data"), EncryptedVolumes(root / "volumes", look_every_s=0)
    volumes.create(volume, "k" * 64)
    mounts = (Mount("data", "/data", encrypted=True),)
    unit = make("sh", "-c", "id -u; echo secret > /data/file", image=container_engine.image_of_a_user, mounts=mounts)
    with pytest.raises(YardError, match="engine_failed"):
        runtime.start(unit)
    assert unit.name not in runtime.observe()
    try:
        volumes.unlock(volume, "k" * 64)
        ended, text = run(runtime, unit)
        assert (ended.exit_code, text) == (0, "1000")
        assert not any(
            b"secret" in file.read_bytes() for file in (root / "sealed-volumes").rglob("*") if file.is_file()
        )
        ended, text = run(runtime, make("cat", "/data/file", mounts=mounts))
        assert (ended.exit_code, text) == (0, "secret")
        runtime.forget(unit.name)
        volumes.settle({volume}, set())
        volumes.settle(set(), set())
        assert not volumes.is_open(volume)
    finally:
        for point in gocryptfs.mounted(root):
            gocryptfs.unmount(point, at_once=True)


def test_a_declared_port_answers_on_loopback(runtime: ContainerRuntime, make: Callable[..., Unit]) -> None:
    unit = make("sh", "-c", "echo hello > index.html; exec httpd -f -p $PORT", ports=(8080,))
    runtime.start(unit)
    host, port = seen(runtime, unit.name, UnitState.RUNNING).ports[8080]
    assert host == "127.0.0.1"
    until = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=2) as answer:
                assert answer.read() == b"hello\n"
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_later_runtime_knows_the_units_even_without_their_records(
    runtime: ContainerRuntime, root: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    unit = make("sleep", "60", ports=(80,))
    runtime.start(unit)
    before = seen(runtime, unit.name, UnitState.RUNNING)
    for record in (root / "units").glob("*.json"):
        record.unlink()
    later = ContainerRuntime(root, HostClock(), container_engine.socket, True)
    after = seen(later, unit.name, UnitState.RUNNING)
    later.start(unit)
    later.close()
    assert after.ports == before.ports
    assert after.started_ns == pytest.approx(before.started_ns, abs=50_000_000)


def test_another_yard_on_the_same_engine_is_not_seen(
    runtime: ContainerRuntime, tmp_path: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    unit = make("sleep", "60")
    runtime.start(unit)
    seen(runtime, unit.name, UnitState.RUNNING)
    other = ContainerRuntime(tmp_path / "other", HostClock(), container_engine.socket, True)
    assert other.observe() == {}
    other.start(unit)
    assert other.observe()[unit.name].reason == "start_failed"
    other.forget(unit.name)
    other.close()
    assert runtime.observe()[unit.name].state is UnitState.RUNNING


def test_a_container_that_was_made_and_not_started_is_started_by_the_next_runtime(
    root: Path, make: Callable[..., Unit], container_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = EngineApi.post

    def killed_before_start(self: EngineApi, path: str, *args: Any, **query: Any) -> Any:
        if path.endswith("/start"):
            raise EngineGone("killed here")
        return post(self, path, *args, **query)

    unit = make("sleep", "60")
    first = ContainerRuntime(root, HostClock(), container_engine.socket, True)
    with monkeypatch.context() as patched:
        patched.setattr(EngineApi, "post", killed_before_start)
        first.start(unit)
        until = time.monotonic() + 30
        api = EngineApi(container_engine.socket)
        while api.inspect(unit.name) is None:
            assert time.monotonic() < until
        api.close()
        first.close()
    second = ContainerRuntime(root, HostClock(), container_engine.socket, True)
    assert seen(second, unit.name, UnitState.RUNNING).started_ns is not None
    second.close()


def test_while_the_engine_is_away_units_stand_as_they_were_last_seen(
    root: Path, tmp_path: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    door = tmp_path / "door.sock"
    door.symlink_to(container_engine.socket)
    runtime = ContainerRuntime(root, HostClock(), door, True)
    unit = make("sleep", "60")
    runtime.start(unit)
    seen(runtime, unit.name, UnitState.RUNNING)
    runtime.close()
    door.unlink()
    away, later = runtime.observe()[unit.name], runtime.observe()[unit.name]
    assert away.state is UnitState.RUNNING
    assert away.proven_ns == later.proven_ns
    with pytest.raises(YardError) as refused:
        runtime.start(make("true"))
    assert refused.value.code == "engine_failed"
    with pytest.raises(YardError) as unavailable:
        runtime.check_image(container_engine.image)
    assert unavailable.value.code == "runtime_unavailable"
    door.symlink_to(container_engine.socket)
    assert (runtime.observe()[unit.name].proven_ns or 0) > (away.proven_ns or 0)
    runtime.close()


def test_a_container_removed_from_outside_is_proven_to_when_it_was_last_seen(
    runtime: ContainerRuntime, make: Callable[..., Unit], container_engine: Any
) -> None:
    unit = make("sleep", "60")
    runtime.start(unit)
    last = seen(runtime, unit.name, UnitState.RUNNING)
    subprocess.run([*container_engine.command, "rm", "-f", "-t", "0", unit.name], check=True, capture_output=True)
    gone = seen(runtime, unit.name, UnitState.EXITED)
    assert (gone.reason, gone.recorded) == ("vanished", False)
    assert gone.proven_ns == last.proven_ns


def test_a_unit_that_a_reboot_ended_has_no_exit_record(
    root: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    before = ContainerRuntime(root, HostClock("boot-a"), container_engine.socket, True)
    unit = make("sleep", "60")
    before.start(unit)
    last = seen(before, unit.name, UnitState.RUNNING)
    before.close()
    subprocess.run([*container_engine.command, "kill", unit.name], check=True, capture_output=True)
    after = ContainerRuntime(root, HostClock("boot-b"), container_engine.socket, True)
    ended = seen(after, unit.name, UnitState.EXITED)
    after.close()
    assert (ended.boot_id, ended.recorded, ended.exit_code) == ("boot-a", False, None)
    assert ended.started_ns == last.started_ns
    assert ended.proven_ns is not None
    assert ended.proven_ns >= (last.started_ns or 0)


def test_a_unit_that_uses_too_much_memory_says_so(runtime: ContainerRuntime, make: Callable[..., Unit]) -> None:
    ended, _ = run(runtime, make("sh", "-c", "x=$(head -c 300000000 /dev/zero | tr '\\0' x)"))
    assert (ended.reason, ended.exit_code) == ("out_of_memory", 137)


def test_an_image_that_cannot_be_fetched_ends_the_unit_with_what_the_registry_said(
    runtime: ContainerRuntime, make: Callable[..., Unit]
) -> None:
    unit = make("true", image="localhost:1/nobody/nothing:1")
    runtime.check_image(unit.image)
    runtime.start(unit)
    ended = seen(runtime, unit.name, UnitState.EXITED)
    assert ended.reason == "start_failed"
    assert "connection refused" in str(ended.detail)


@pytest.mark.parametrize("image", ["busybox", "localhost/nothing:1", "someone/something"])
def test_an_image_that_is_neither_here_nor_names_its_registry_is_refused(runtime: ContainerRuntime, image: str) -> None:
    with pytest.raises(YardError) as refused:
        runtime.check_image(image)
    assert refused.value.code == "unknown_image"


@pytest.mark.parametrize("path", ["/", "/workspace", "/etc/cron.d", "/proc", "../up", "/usr/lib"])
def test_a_mount_over_the_system_or_the_disk_never_starts(
    runtime: ContainerRuntime, make: Callable[..., Unit], path: str
) -> None:
    ended, _ = run(runtime, make("true", mounts=(Mount("data", path),)))
    assert ended.reason == "start_failed"


def test_secrets_are_in_the_unit_and_nowhere_that_the_yard_writes(
    runtime: ContainerRuntime, root: Path, make: Callable[..., Unit], container_engine: Any
) -> None:
    unit = make("sh", "-c", 'test "$TOKEN" = hush-hush', secrets={"TOKEN": "hush-hush"})
    ended, text = run(runtime, unit)
    assert (ended.exit_code, text) == (0, "")
    written = [file for file in root.rglob("*") if file.is_file() and b"hush-hush" in file.read_bytes()]
    assert written == []
    api = EngineApi(container_engine.socket)
    container = api.inspect(unit.name)
    api.close()
    assert container is not None
    assert "hush-hush" not in json.dumps(container["Config"]["Labels"])


def test_volumes_are_shared_by_the_units_of_a_tenant_and_reached_by_file_copy(
    runtime: ContainerRuntime, make: Callable[..., Unit]
) -> None:
    mounts = (Mount("data", "/data"), Mount("models", "models", read_only=True))
    first, text = run(runtime, make("sh", "-c", "echo 1 > /data/a; touch models/x || echo closed", mounts=mounts))
    assert first.exit_code == 0
    assert "closed" in text.splitlines()
    packed = b"".join(runtime.read_files("disk-0", None, "/data/a"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        content = archive.extractfile("a")
        assert content is not None
        assert content.read() == b"1\n"
    _, text = run(runtime, make("cat", "/v/a", disk="disk-1", mounts=(Mount("data", "/v"),)))
    assert text == "1"
    ended, _ = run(runtime, make("cat", "/v/a", disk="disk-2", tenant_id="tn-b", mounts=(Mount("data", "/v"),)))
    assert ended.exit_code == 1


def test_a_terminal_has_its_size_and_a_closed_session_ends_its_command(
    runtime: ContainerRuntime, make: Callable[..., Unit]
) -> None:
    unit = make("sleep", "60")
    runtime.start(unit)
    seen(runtime, unit.name, UnitState.RUNNING)

    async def talk() -> tuple[bytes, int, int]:
        terminal = await runtime.execute(unit.name, ("sh", "-c", "stty size; read x; stty size; exit 5"), True, 100, 40)
        text = await terminal.read()
        await terminal.resize(90, 30)
        await terminal.write(b"\n")
        while piece := await terminal.read():
            text += piece
        code = await terminal.wait()
        await terminal.close()
        endless = await runtime.execute(unit.name, ("sh", "-c", "sleep 1000; true"), False)
        await endless.close()
        return text, code, await asyncio.wait_for(endless.wait(), 10)

    text, code, killed = asyncio.run(talk())
    assert b"40 100" in text
    assert b"30 90" in text
    assert (code, killed) == (5, 137)


def test_a_real_card_is_asked_for_by_its_cdi_name(runtime: ContainerRuntime, make: Callable[..., Unit]) -> None:
    uuid = "GPU-00000000-test-0000-0000-000000000001"
    cdi = Path("/var/run/cdi")
    spec = cdi / "gpuyard-test.json"
    device = {"name": uuid, "containerEdits": {"env": ["FROM_CDI=yes"]}}
    try:
        cdi.mkdir(exist_ok=True)
        spec.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [device]}))
    except PermissionError:
        pytest.skip("only root may describe a device in /var/run/cdi")
    try:
        cut = Slice("ls-1", uuid, SliceShape(1 << 30, 250_000), Guarantee.NONE)
        _, text = run(runtime, make("sh", "-c", "echo cdi=$FROM_CDI", slices=(cut,), simulated_cards=False))
        assert text == "cdi=yes"
        _, text = run(runtime, make("sh", "-c", "echo cdi=$FROM_CDI", slices=(cut,), simulated_cards=True))
        assert text == "cdi="
        missing = replace(cut, card_uuid="GPU-00000000-test-0000-0000-000000000002")
        ended, _ = run(runtime, make("true", slices=(missing,), simulated_cards=False))
        assert ended.reason == "start_failed"
    finally:
        spec.unlink()


def test_where_no_bridge_can_be_made_units_share_the_network_of_the_host_and_the_runtime_says_so(
    tmp_path: Path, make: Callable[..., Unit], container_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = json.loads(
        subprocess.run([*container_engine.command, "info", "--format", "json"], check=True, capture_output=True).stdout
    )
    if info["host"]["networkBackend"] != "cni":
        pytest.skip("only CNI can be told to look for its plugins where there are none")
    empty = tmp_path / "no-plugins"
    empty.mkdir()
    settings = tmp_path / "containers.conf"
    settings.write_text(f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{empty}"]\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(settings))
    service = PrivatePodman(tmp_path, container_engine.command[0], container_engine.command[1:])
    engine = service.start()
    assert engine is not None
    runtime = ContainerRuntime(tmp_path / "yard", HostClock(), engine.path, True)
    try:
        assert "own_network" in runtime.isolation.enforces
        unit = make("sh", "-c", "echo hello > index.html; exec httpd -f -p 127.0.0.1:$PORT_8080", ports=(8080,))
        runtime.start(unit)
        host, port = seen(runtime, unit.name, UnitState.RUNNING).ports[8080]
        until = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"http://{host}:{port}/", timeout=2) as answer:
                    assert answer.read() == b"hello\n"
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
        assert "shared_network" in runtime.isolation.not_protected
        assert "own_network" not in runtime.isolation.enforces
    finally:
        for name in runtime.observe():
            runtime.forget(name)
        runtime.close()
        service.stop()


def test_the_private_service_is_taken_over_by_the_next_yard_and_ended_once(
    tmp_path: Path, container_engine: Any
) -> None:
    deep = tmp_path / ("long-" * 20)
    deep.mkdir()
    first = PrivatePodman(deep, container_engine.command[0], container_engine.command[1:])
    second = PrivatePodman(deep, container_engine.command[0], container_engine.command[1:])
    started = first.start()
    pid = (deep / "podman.pid").read_text()
    assert started is not None
    assert started.podman
    assert second.start() == started
    assert (deep / "podman.pid").read_text() == pid
    second.stop()
    assert find_socket({"CONTAINER_HOST": f"unix://{started.path}"}) is None
    first.stop()
    started.path.parent.rmdir()


def test_the_environment_names_the_engine_and_is_not_overruled(container_engine: Any) -> None:
    found = find_socket({"DOCKER_HOST": f"unix://{container_engine.socket}"})
    assert found is not None
    assert (found.path, found.podman) == (container_engine.socket, True)
    assert find_socket({"DOCKER_HOST": "tcp://127.0.0.1:2375"}) is None
    assert find_socket({"DOCKER_HOST": "unix:///nobody/listens/here.sock"}) is None
