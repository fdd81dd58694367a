"""What the process runtime promises beyond the protocol: it outlives everything, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuyard.engines.local import LocalEngine
from gpuyard.engines.process import cgroup, launching
from gpuyard.engines.process.cgroup import Limits
from gpuyard.engines.process.runtime import ProcessRuntime
from gpuyard.engines.runtime import UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.workloads import Mount

_SERVER = """
import os, signal, sys, time
from pathlib import Path
from gpuyard.engines.process.runtime import ProcessRuntime
from gpuyard.engines.runtime import Unit

class Clock:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    def now_us(self): return time.time_ns() // 1000
    def monotonic_ns(self): return time.monotonic_ns()

root, name, script, *then = sys.argv[1:]
leaked = os.open("/dev/zero", os.O_RDONLY)
os.set_inheritable(leaked, True)
while time.time() < float(os.environ.get("BEGIN_AT", "0")): pass
ProcessRuntime(Path(root), Clock()).start(Unit(
    name, "disk-" + name, "t", ("sh", "-c", script), None, {}, {}, (), (), None, 1000, 256 << 20, (), True))
if then == ["die"]:
    os.kill(os.getpid(), signal.SIGKILL)
"""


class RealClock:
    """The machine's own time, in this boot or in another."""

    def __init__(self, boot_id: str | None = None) -> None:
        self.boot_id = boot_id or Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def server(root: Path, name: str, script: str, *then: str, begin_at: float = 0) -> subprocess.Popen[bytes]:
    """A server of its own that starts one unit."""
    environment = {**os.environ, "BEGIN_AT": str(begin_at), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", _SERVER, str(root), name, script, *then], env=environment)


def processes_with(text: str) -> list[int]:
    """The processes that have this text among their arguments or in their environment."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in told and state != "Z":
            found.append(int(folder.name))
    return found


def supervisor_of(process: Any, name: str) -> int:
    folder = str(process.root / "units" / name)
    for pid in processes_with("supervisor.py"):
        if folder in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
            return pid
    raise AssertionError(f"no supervisor of {name}")


def eventually(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def logged(process: Any, name: str) -> list[str]:
    async def collect() -> list[str]:
        return [line.text async for line in process.runtime.logs(name)]

    return asyncio.run(collect())


def held_by(pid: int) -> list[str]:
    """What a process has open; a descriptor may be closed while it is looked at."""
    found: list[str] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def test_a_unit_survives_its_server_and_holds_nothing_of_it(process: Any) -> None:
    dead = server(process.root, "orphan", "echo on; while ! test -f go; do sleep 0.05; done; exit 3", "die")
    assert dead.wait() == -signal.SIGKILL
    process.until("orphan", lambda seen: seen.state is UnitState.RUNNING)
    supervisor = supervisor_of(process, "orphan")
    assert "/dev/zero" not in held_by(supervisor)
    assert os.getsid(supervisor) == supervisor
    (process.root / "disks" / "disk-orphan" / "go").touch()
    assert process.ended("orphan").exit_code == 3


def test_a_name_runs_once_however_many_servers_start_it(process: Any) -> None:
    begin_at = time.time() + 1.5
    racers = [server(process.root, "race", "echo ran >> ran; sleep 0.3", begin_at=begin_at) for _ in range(8)]
    assert [racer.wait() for racer in racers] == [0] * 8
    process.ended("race")
    eventually(lambda: not processes_with(str(process.root / "units" / "race")))
    assert (process.root / "disks" / "disk-race" / "ran").read_text() == "ran\n"


def test_a_unit_that_was_made_but_not_begun_is_started_later(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(launching, "spawn", refuse)
        with pytest.raises(YardError, match="engine_failed"):
            process.runtime.start(process.unit("half", "true"))
    process.runtime = process.make()
    assert "half" not in process.runtime.observe()
    assert process.start("half", "sh", "-c", "exit 2").name == "half"
    assert process.ended("half").exit_code == 2


def test_a_unit_that_was_stopped_before_it_began_never_runs(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(launching, "spawn", lambda *_: (_ for _ in ()).throw(OSError(11, "no")))
        with pytest.raises(YardError):
            process.runtime.start(process.unit("never", "touch", "ran"))
    process.runtime.stop("never", 0)
    process.runtime.start(process.unit("never", "touch", "ran"))
    ended = process.runtime.observe()["never"]
    assert (ended.state, ended.reason, ended.started_ns) == (UnitState.EXITED, "stopped", None)
    assert not (process.root / "disks" / "disk-never" / "ran").exists()


@pytest.mark.parametrize("limits", ["cgroup", "none"])
def test_a_killed_supervisor_takes_everything_with_it(
    process: Any, monkeypatch: pytest.MonkeyPatch, limits: str
) -> None:
    if limits == "none":
        monkeypatch.setattr(cgroup, "find", lambda _: Limits(0))
        process.runtime = process.make()
    script = "setsid sleep 5001 & (sleep 5002 &) ; sleep 5003"
    started = process.start("lost", "sh", "-c", script, environment={"FAMILY": str(process.root)})
    eventually(lambda: len(processes_with(f"FAMILY={process.root}")) >= 4)
    os.kill(supervisor_of(process, "lost"), signal.SIGKILL)
    ended = process.ended("lost")
    assert (ended.reason, ended.recorded, ended.exit_code) == ("supervisor_lost", False, None)
    assert ended.proven_ns >= started.started_ns
    assert processes_with(f"FAMILY={process.root}") == []
    assert process.make().observe()["lost"] == ended


def test_a_unit_that_is_killed_from_outside_is_told_as_killed(process: Any) -> None:
    process.start("victim", "sleep", "1000", environment={"VICTIM": str(process.root)})
    (pid,) = processes_with(f"VICTIM={process.root}")
    os.kill(pid, signal.SIGKILL)
    ended = process.ended("victim")
    assert (ended.exit_code, ended.reason, ended.recorded) == (137, "killed", True)


@pytest.mark.parametrize("limits", ["cgroup", "none"])
def test_nothing_is_left_of_a_unit_that_has_ended(process: Any, monkeypatch: pytest.MonkeyPatch, limits: str) -> None:
    if limits == "none":
        monkeypatch.setattr(cgroup, "find", lambda _: Limits(0))
        process.runtime = process.make()
    script = "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep 5001\" &) ; sleep 5002 & sleep 0.1; exit 0"
    process.start("litter", "sh", "-c", script, environment={"LITTER": str(process.root)})
    supervisor = supervisor_of(process, "litter")
    assert process.ended("litter").exit_code == 0
    assert processes_with(f"LITTER={process.root}") == []
    eventually(lambda: process.runtime.observe() and not Path(f"/proc/{supervisor}").exists())  # reaped as well
    mine = cgroup.find(process.root)
    assert not any(Path(folder).exists() for folder in mine.folders.values())


def test_secrets_are_in_no_file_and_on_no_command_line(process: Any) -> None:
    secret = "hunter2-hunter2"
    process.start("secret", "sh", "-c", 'test "$KEY" = hunter2-hunter2 && sleep 1000', secrets={"KEY": secret})
    supervisor = supervisor_of(process, "secret")
    assert secret.encode() not in Path(f"/proc/{supervisor}/cmdline").read_bytes()
    assert secret.encode() not in Path(f"/proc/{supervisor}/environ").read_bytes()
    for file in process.root.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    assert process.runtime.observe()["secret"].state is UnitState.RUNNING


def test_ports_stay_the_same_and_are_told_to_the_unit(process: Any) -> None:
    script = 'echo "$PORT $PORT_80 $PORT_443"; sleep 1000'
    first = process.start("ports", "sh", "-c", script, ports=(80, 443))
    (host, port), (_, other) = first.ports[80], first.ports[443]
    eventually(lambda: logged(process, "ports") == [f"{port} {port} {other}"])
    assert host == "127.0.0.1"
    assert port != other
    assert process.make().observe()["ports"].ports == first.ports


def test_another_boot_ends_every_unit_at_its_last_sign_of_life(process: Any) -> None:
    before = process.start("reboot", "sleep", "1000")
    os.kill(supervisor_of(process, "reboot"), signal.SIGKILL)
    eventually(lambda: not processes_with(str(process.root / "disks" / "disk-reboot")))

    ended = ProcessRuntime(process.root, RealClock("00000000-next-boot-0000-000000000000")).observe()["reboot"]
    assert (ended.state, ended.boot_id, ended.recorded) == (UnitState.EXITED, before.boot_id, False)
    assert ended.proven_ns >= before.started_ns


def test_the_log_is_bounded_and_followed_across_its_rotations(process: Any) -> None:
    process.runtime = ProcessRuntime(process.root, RealClock(), log_bytes=64 << 10)
    process.start("long", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done")

    async def follow() -> list[str]:
        return [line.text async for line in process.runtime.logs("long", follow=True)]

    followed = asyncio.run(asyncio.wait_for(follow(), 60))
    assert followed[-1] == "line-19999"
    kept = logged(process, "long")
    assert kept == [f"line-{number}" for number in range(20000 - len(kept), 20000)]
    size = sum(file.stat().st_size for file in (process.root / "units" / "long").glob("log*"))
    assert 64 << 10 < size <= 128 << 10


def test_lines_of_any_length_come_back_whole(process: Any) -> None:
    process.start("wide", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; printf '\\n'; echo end")
    process.ended("wide")
    assert logged(process, "wide") == ["x" * 100_000, "", "end"]


def test_images_are_refused(process: Any) -> None:
    process.runtime.check_image(None)
    process.runtime.check_image("host")
    with pytest.raises(YardError, match="runtime_unavailable"):
        process.runtime.check_image("pytorch")


@pytest.mark.parametrize("path", ["../../etc", "a/../../b", "trap/inner"])
def test_a_mount_that_leads_outside_is_never_made(process: Any, path: str) -> None:
    disk = process.root / "disks" / "disk-mount"
    disk.mkdir()
    (disk / "trap").symlink_to("/tmp")
    process.runtime.start(process.unit("mount", "true", mounts=(Mount("v", path),)))
    ended = process.ended("mount")
    assert ended.reason == "start_failed"
    assert path in ended.detail


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "x" * 200])
def test_names_that_are_paths_are_refused(process: Any, name: str) -> None:
    with pytest.raises(YardError, match="invalid_name"):
        process.runtime.start(process.unit(name, "true"))
    with pytest.raises(YardError, match="invalid_name"):
        process.runtime.remove_disk(name)


def test_where_no_cgroup_can_be_made_it_says_so(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "find", lambda _: Limits(0))
    process.runtime = process.make()
    isolation = process.runtime.isolation
    assert isolation.enforces == ("own_session", "memory_limit_per_process")
    assert "no_cpu_limit" in isolation.not_protected
    process.start("bare", "sh", "-c", "ulimit -d", memory_bytes=64 << 20)
    process.ended("bare")
    assert logged(process, "bare") == [str((64 << 20) // 1024)]


@pytest.fixture
def small_disk(process: Any, tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, and the yard on it."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    process.root = place / "yard"
    process.runtime = ProcessRuntime(process.root, RealClock())
    yield place
    process.close()
    process.runtime = process.make()
    eventually(lambda: subprocess.run(["umount", place], capture_output=True, check=False).returncode == 0)


def fill(ballast: Path) -> None:
    """Writes until nothing more fits."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_loses_output_but_never_the_end(process: Any, small_disk: Path, pack: Any) -> None:
    runtime = process.runtime
    process.start("full", "sh", "-c", "while ! test -f fill; do sleep 0.05; done; seq 1 20000; exit 6")
    disk = process.root / "disks" / "disk-full"
    (disk / "fill").touch()
    fill(small_disk / "ballast")
    ended = process.ended("full")
    assert (ended.exit_code, ended.reason, ended.recorded) == (6, "exited", True)
    with pytest.raises(YardError, match="storage_full"):
        runtime.write_files("disk-full", "full", "in", pack({"a": b"", "big": bytes(1 << 20)}))
    assert not (disk / "in").exists()
    with pytest.raises(YardError, match="engine_failed"):
        runtime.start(process.unit("more", "true"))
    (small_disk / "ballast").unlink()
    runtime.start(process.unit("more", "true"))
    assert process.ended("more").exit_code == 0


def test_links_of_a_tenant_open_no_door(process: Any, pack: Any, unpacked: Any) -> None:
    process.start("links", "sleep", "1000")
    disk = process.root / "disks" / "disk-links"
    outside = process.root / "volumes" / "tenant-b" / "private"
    outside.mkdir(parents=True)
    (outside / "file").write_text("theirs")
    (disk / "out").symlink_to(outside)
    (disk / "up").symlink_to("../../volumes/tenant-b/private")
    (disk / "loop").symlink_to("loop")
    (disk / "dir").mkdir()
    (disk / "dir" / "in").write_text("mine")
    (disk / "fine").symlink_to("dir/../dir/in")
    for path in ("out", "out/file", "up/file", "loop"):
        with pytest.raises(YardError, match="invalid_path"):
            process.runtime.read_files("disk-links", "links", path)
        with pytest.raises(YardError, match="invalid_path"):
            process.runtime.write_files("disk-links", "links", path, pack({"x": b""}))
    with pytest.raises(YardError, match="invalid_path"):
        process.runtime.write_files("disk-links", "links", ".", pack({"out/planted": b""}))
    assert [file.name for file in outside.iterdir()] == ["file"]
    assert unpacked(process.runtime.read_files("disk-links", "links", "fine")) == {"fine": b"mine"}


def test_no_unit_has_more_traffic_than_the_machine_and_what_it_sends_is_absent(process: Any) -> None:
    process.start("quiet", "sleep", "1000")
    before = process.runtime.activity("quiet").network_bytes
    assert before is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(100):
            out.sendto(bytes(1000), ("127.0.0.1", 9))
    assert process.runtime.activity("quiet").network_bytes >= before + 100_000
    assert LocalEngine({"process": process.runtime}, "process").sent_bytes(process.runtime, "quiet") is None
