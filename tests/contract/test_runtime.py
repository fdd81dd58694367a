"""One suite for every runtime: `case` is each of them, `real` those that run commands."""

from __future__ import annotations

import asyncio
import tarfile
import time
from dataclasses import replace
from typing import Any

import pytest

from gpuyard.engines.runtime import LogLine, Runtime, Session, UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.model.workloads import Mount

SECOND_US = 1_000_000


def lines(runtime: Runtime, name: str, since_us: int | None = None, follow: bool = False) -> list[LogLine]:
    async def collect() -> list[LogLine]:
        return [line async for line in runtime.logs(name, since_us, follow)]

    return asyncio.run(asyncio.wait_for(collect(), 30))


async def all_output(session: Session) -> bytes:
    output = b""
    while piece := await session.read():
        output += piece
    return output


# every runtime


def test_a_unit_runs_and_ends_by_itself(case: Any) -> None:
    running = case.start("once", "sleep", "1")
    assert running.state is UnitState.RUNNING
    assert running.started_ns is not None
    ended = case.ended("once")
    assert (ended.exit_code, ended.reason, ended.recorded) == (0, "exited", True)
    assert ended.boot_id == running.boot_id
    assert ended.started_ns == running.started_ns
    assert 900_000_000 < ended.proven_ns - ended.started_ns < 10_000_000_000


def test_the_node_records_how_much_of_a_card_a_unit_was_started_on(case: Any) -> None:
    halves = tuple(Slice("ls", f"GPU-{n}", SliceShape(1 << 30, 500_000), Guarantee.NONE) for n in range(3))
    case.runtime.start(replace(case.unit("three-halves", "sleep", "1"), slices=halves, simulated_cards=True))
    running = case.until("three-halves", lambda seen: seen.state is UnitState.RUNNING)
    assert running.share_ppm == 1_500_000
    assert case.ended("three-halves").share_ppm == 1_500_000
    assert case.start("none", "sleep", "1000").share_ppm == 0


def test_starting_a_running_unit_again_changes_nothing(case: Any) -> None:
    first = case.start("twice", "sleep", "1000")
    case.runtime.start(case.unit("twice", "sleep", "1000"))
    assert case.runtime.observe()["twice"].started_ns == first.started_ns


def test_a_unit_that_has_ended_is_not_started_again(case: Any) -> None:
    case.start("over", "sleep", "1")
    ended = case.ended("over")
    case.runtime.start(case.unit("over", "sleep", "1"))
    assert case.runtime.observe()["over"] == ended


def test_stop_ends_a_unit_and_may_be_asked_again(case: Any) -> None:
    case.start("stop", "sleep", "1000")
    case.runtime.stop("stop", 200_000)
    case.runtime.stop("stop", 200_000)
    ended = case.ended("stop")
    assert ended.reason == "stopped"
    assert ended.recorded
    assert ended.exit_code in {137, 143}
    case.runtime.stop("stop", 0)
    assert case.runtime.observe()["stop"] == ended


def test_running_units_are_proven_to_run(case: Any) -> None:
    first = case.start("proof", "sleep", "1000")
    later = case.until("proof", lambda seen: seen.proven_ns > first.proven_ns)
    assert later.state is UnitState.RUNNING
    assert later.started_ns <= first.proven_ns


def test_unknown_names_are_no_error(case: Any) -> None:
    case.runtime.stop("nobody", 0)
    case.runtime.forget("nobody")
    case.runtime.remove_disk("nothing")
    assert case.runtime.observe() == {}
    assert case.runtime.disks() == frozenset()


def test_forgetting_kills_a_running_unit_and_keeps_its_disk(case: Any) -> None:
    case.start("gone", "sleep", "1000")
    case.runtime.forget("gone")
    assert case.runtime.observe() == {}
    assert case.runtime.disks() == {"disk-gone"}
    case.runtime.remove_disk("disk-gone")
    assert case.runtime.disks() == frozenset()


def test_commands_are_run_only_inside_running_units(case: Any) -> None:
    case.start("done", "sleep", "1")
    case.ended("done")
    for name in ("done", "nobody"):
        with pytest.raises(YardError, match="not_running"):
            asyncio.run(case.runtime.execute(name, ("true",), terminal=False))


def test_files_go_in_and_come_out(case: Any, pack: Any, unpacked: Any) -> None:
    case.start("files", "sleep", "1000")
    case.runtime.write_files("disk-files", "files", "in/deep", pack({"a": b"1", "sub/b": b"2" * 100_000}))
    case.runtime.write_files("disk-files", "files", "in/deep", pack({"a": b"new"}))
    found = unpacked(case.runtime.read_files("disk-files", "files", "in"))
    assert found == {"in/deep/a": b"new", "in/deep/sub/b": b"2" * 100_000}
    assert unpacked(case.runtime.read_files("disk-files", "files", "in/deep/a")) == {"a": b"new"}


def test_missing_files_are_refused_before_the_first_byte(case: Any) -> None:
    case.start("missing", "sleep", "1000")
    with pytest.raises(YardError, match="file_not_found"):
        case.runtime.read_files("disk-missing", "missing", "no/such")


def test_paths_that_climb_are_refused(case: Any, pack: Any) -> None:
    case.start("climb", "sleep", "1000")
    with pytest.raises(YardError, match="invalid_path"):
        case.runtime.read_files("disk-climb", "climb", "../disk-climb")
    with pytest.raises(YardError, match="invalid_path"):
        case.runtime.write_files("disk-climb", "climb", "a/../..", pack({"x": b""}))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_archives_that_climb_are_refused_whole(case: Any, pack: Any, name: str) -> None:
    case.start("tar", "sleep", "1000")
    with pytest.raises(YardError, match="invalid_path"):
        case.runtime.write_files("disk-tar", "tar", "into", pack({"good": b"", name: b"x"}))
    with pytest.raises(YardError, match="file_not_found"):
        case.runtime.read_files("disk-tar", "tar", "into/good")


def test_archives_with_devices_are_refused(case: Any, pack: Any) -> None:
    case.start("device", "sleep", "1000")
    node = tarfile.TarInfo("null")
    node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, 3
    with pytest.raises(YardError, match="invalid_path"):
        case.runtime.write_files("disk-device", "device", ".", pack({"null": node}))


# the runtimes that run commands


def test_output_is_kept_line_by_line_with_its_stream(real: Any) -> None:
    before_us = time.time_ns() // 1000
    real.start("talk", "sh", "-c", "echo one; echo two >&2; printf three; exit 3")
    ended = real.ended("talk")
    assert (ended.exit_code, ended.reason) == (3, "exited")
    said = lines(real.runtime, "talk")
    assert {(line.stream, line.text) for line in said} == {("stdout", "one"), ("stderr", "two"), ("stdout", "three")}
    assert all(before_us <= line.at_us <= time.time_ns() // 1000 for line in said)


def test_logs_are_followed_until_the_unit_has_ended(real: Any) -> None:
    real.start("count", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert [line.text for line in lines(real.runtime, "count", follow=True)] == ["1", "2", "3", "4", "5"]


def test_logs_begin_where_asked(real: Any) -> None:
    real.start("since", "sh", "-c", "echo early; sleep 0.5; echo late")
    real.ended("since")
    everything = lines(real.runtime, "since")
    assert [line.text for line in everything] == ["early", "late"]
    assert lines(real.runtime, "since", since_us=everything[1].at_us) == everything[1:]


def test_environment_and_secrets_reach_the_unit_but_nothing_of_the_server_does(
    real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_ONLY", "must-not-leak")
    real.start(
        "env", "sh", "-c", 'echo "$MINE $TOKEN [$SERVER_ONLY]"', environment={"MINE": "m"}, secrets={"TOKEN": "s"}
    )
    real.ended("env")
    assert [line.text for line in lines(real.runtime, "env")] == ["m s []"]


def test_a_working_directory_is_made(real: Any, unpacked: Any) -> None:
    real.start("cwd", "sh", "-c", "echo here > file", working_directory="deep/er")
    assert real.ended("cwd").exit_code == 0
    assert unpacked(real.runtime.read_files("disk-cwd", "cwd", "deep/er/file")) == {"file": b"here\n"}


def test_a_program_that_is_not_there_is_told(real: Any) -> None:
    real.runtime.start(real.unit("absent", "no-such-program"))
    ended = real.ended("absent")
    assert ended.reason == "start_failed"
    assert "no-such-program" in (ended.detail or "")
    assert ended.started_ns is None


def test_a_unit_may_use_its_grace_to_end_in_its_own_way(real: Any) -> None:
    real.start("polite", "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    real.until("polite", lambda _: bool(lines(real.runtime, "polite")))
    real.runtime.stop("polite", 10 * SECOND_US)
    ended = real.ended("polite")
    assert (ended.exit_code, ended.reason) == (7, "stopped")


def test_a_unit_that_ignores_being_asked_is_killed_after_its_grace(real: Any) -> None:
    real.start("deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    real.until("deaf", lambda _: bool(lines(real.runtime, "deaf")))
    asked_ns = time.monotonic_ns()
    real.runtime.stop("deaf", SECOND_US)
    ended = real.ended("deaf")
    assert (ended.exit_code, ended.reason) == (137, "stopped")
    assert ended.proven_ns - asked_ns >= SECOND_US * 900


def test_the_checkpoint_command_runs_before_the_unit_is_asked_to_end(real: Any) -> None:
    script = "trap 'test -f saved && exit 5; exit 6' TERM; echo ready; while :; do sleep 0.05; done"
    real.start("save", "sh", "-c", script, environment={"WHAT": "step-9"})
    real.until("save", lambda _: bool(lines(real.runtime, "save")))
    real.runtime.stop("save", 20 * SECOND_US, ("sh", "-c", "sleep 0.2; echo $WHAT > saved"))
    assert real.ended("save").exit_code == 5


def test_a_checkpoint_that_hangs_is_bounded_by_the_grace(real: Any) -> None:
    real.start("hang", "sleep", "1000")
    real.runtime.stop("hang", SECOND_US, ("sleep", "1000"))
    assert real.ended("hang").reason == "stopped"


def test_a_restarted_server_adopts_what_runs(real: Any) -> None:
    before = real.start("adopt", "sh", "-c", "echo from; while ! test -f go; do sleep 0.05; done; echo on; exit 4")
    real.runtime = real.make()
    after = real.runtime.observe()["adopt"]
    assert (after.state, after.started_ns) == (UnitState.RUNNING, before.started_ns)
    session = asyncio.run(_run_and_wait(real.runtime, "adopt", ("sh", "-c", "touch go")))
    assert session == 0
    assert real.ended("adopt").exit_code == 4
    assert [line.text for line in lines(real.runtime, "adopt")] == ["from", "on"]


async def _run_and_wait(runtime: Runtime, name: str, command: tuple[str, ...]) -> int:
    session = await runtime.execute(name, command, terminal=False)
    await all_output(session)
    code = await session.wait()
    await session.close()
    return code


def test_a_command_inside_a_unit_reads_writes_and_ends(real: Any) -> None:
    async def talk() -> tuple[bytes, int]:
        session = await real.runtime.execute("exec", ("sh", "-c", "cat; echo $WHO; exit 9"), terminal=False)
        await session.write(b"hello ")
        await session.write(b"")
        output = await all_output(session)
        code = await session.wait()
        await session.close()
        return output, code

    real.start("exec", "sleep", "1000", environment={"WHO": "unit"})
    assert asyncio.run(asyncio.wait_for(talk(), 30)) == (b"hello unit\n", 9)


def test_output_of_a_command_is_read_to_its_last_byte(real: Any) -> None:
    async def drain(terminal: bool) -> bytes:
        session = await real.runtime.execute("much", ("sh", "-c", "seq 1 20000"), terminal=terminal)
        output = await all_output(session)
        await session.close()
        return output.replace(b"\r", b"")

    real.start("much", "sleep", "1000")
    wanted = b"".join(b"%d\n" % number for number in range(1, 20001))
    assert asyncio.run(asyncio.wait_for(drain(False), 30)) == wanted
    assert asyncio.run(asyncio.wait_for(drain(True), 30)) == wanted


def test_a_terminal_has_a_size_and_can_be_resized(real: Any) -> None:
    async def talk() -> bytes:
        script = "stty size; read line; stty size; exit 0"
        session = await real.runtime.execute("tty", ("sh", "-c", script), terminal=True, columns=100, rows=30)
        output = b""
        while b"30 100" not in output:
            output += await session.read()
        await session.resize(120, 40)
        await session.write(b"\n")
        output += await all_output(session)
        assert await session.wait() == 0
        await session.close()
        return output

    real.start("tty", "sleep", "1000")
    assert b"40 120" in asyncio.run(asyncio.wait_for(talk(), 30))


def test_closing_a_session_ends_its_command(real: Any) -> None:
    async def open_and_close() -> None:
        session = await real.runtime.execute("close", ("sh", "-c", "touch begun; exec sleep 4321"), terminal=True)
        while await _run_and_wait(real.runtime, "close", ("test", "-f", "begun")):
            pass
        await session.close()
        while not await _run_and_wait(real.runtime, "close", ("sh", "-c", "ps -o args | grep -q '[s]leep 4321'")):
            await asyncio.sleep(0.05)

    real.start("close", "sleep", "1000")
    asyncio.run(asyncio.wait_for(open_and_close(), 30))


def test_a_volume_is_shared_by_the_units_that_mount_it(real: Any) -> None:
    mount = (Mount("models", "/data"),)
    first = "data" if real.kind == "process" else "/data"
    real.start("writer", "sh", "-c", f"echo weights > {first}/w", mounts=mount)
    assert real.ended("writer").exit_code == 0
    real.start("reader", "cat", f"{first}/w", mounts=mount)
    real.ended("reader")
    assert [line.text for line in lines(real.runtime, "reader")] == ["weights"]


def test_a_disk_is_kept_for_the_next_unit(real: Any) -> None:
    real.start("first", "sh", "-c", "echo kept > file", disk="shared-disk")
    real.ended("first")
    real.runtime.forget("first")
    real.start("second", "cat", "file", disk="shared-disk")
    real.ended("second")
    assert [line.text for line in lines(real.runtime, "second")] == ["kept"]


def test_more_memory_than_the_limit_ends_a_unit(real: Any) -> None:
    if not {"memory_limit", "memory"} & set(real.runtime.isolation.enforces):
        pytest.skip("no memory cgroup can be made here")
    real.start("oom", "sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done", memory_bytes=48 << 20)
    ended = real.ended("oom")
    assert ended.reason == "out_of_memory"
    assert ended.exit_code == 137
