"""The pieces of the process runtime that must hold when things go wrong: records, logs, cgroup plans, pids."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.engines.process import cgroup, processes, records
from gpuyard.engines.process.cgroup import Limits
from gpuyard.engines.process.logwriter import LogWriter
from gpuyard.engines.process.records import Claim, End, Record


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    path = str(tmp_path / "record")
    records.create(path)
    opened = Record(path)
    yield opened
    opened.close()


def test_a_new_record_says_nothing_and_is_fully_allocated(record: Record) -> None:
    assert (record.claim(), record.start(), record.beat(), record.end(), record.stop()) == (None,) * 5
    assert os.fstat(record.fd).st_blocks * 512 >= records.SIZE


def test_what_is_written_is_read_back(record: Record) -> None:
    record.write_claim(Claim(5, 6, 7, "b" * 36))
    record.write_end(End(None, "b" * 36, None, "supervisor_lost", "détail", False))
    record.write_stop(9, ("sh", "-c", "x" * 50_000, ""))
    claim, end = record.claim(), record.end()
    assert claim is not None
    assert (claim.at_ns, claim.supervisor_pid, claim.supervisor_ticks, claim.boot_id) == (5, 6, 7, "b" * 36)
    assert end is not None
    assert (end.at_ns, end.exit_code, end.reason, end.detail, end.recorded) == (
        None,
        None,
        "supervisor_lost",
        "détail",
        False,
    )
    assert record.stop() == (9, ("sh", "-c", "x" * 50_000, ""))


def test_a_torn_section_reads_as_absent(record: Record, tmp_path: Path) -> None:
    record.write_end(End(1, "b" * 36, 0, "exited", "detail", True))
    content = (tmp_path / "record").read_bytes()
    at = content.index(b"exited")
    os.pwrite(record.fd, b"E", at)
    assert record.end() is None


def test_a_checkpoint_that_is_too_long_to_keep_is_left_out_but_the_stop_is_kept(record: Record) -> None:
    record.write_stop(9, ("x" * 100_000,))
    assert record.stop() == (9, ())


def test_a_lock_is_held_until_its_last_holder_is_gone(record: Record, tmp_path: Path) -> None:
    assert record.try_lock()
    other = Record(str(tmp_path / "record"))
    assert not other.try_lock()
    record.close()
    assert other.try_lock()
    other.close()


def test_lines_lost_to_a_full_disk_are_counted_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(str(tmp_path / "log"), 1 << 20)
    writer.feed("stdout", b"before\n")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        writer.feed("stdout", b"lost\nlost too\n")
    writer.feed("stdout", b"after\n")
    said = [line.split(" ", 3)[3] for line in (tmp_path / "log").read_text().splitlines()]
    assert said == ["before", "gpuyard: 2 lines were dropped because the disk was full", "after"]


def test_a_recycled_pid_is_never_killed() -> None:
    with subprocess.Popen(["sleep", "100"]) as stranger:
        ticks = processes.start_ticks(stranger.pid)
        assert not processes.kill_exactly(stranger.pid, ticks - 1)
        assert stranger.poll() is None
        assert processes.kill_exactly(stranger.pid, ticks)
        assert stranger.wait() == -9


def test_v2_limits_are_written_into_one_group() -> None:
    limits = Limits(2, dict.fromkeys(("cpu", "memory", "pids"), "/sys/fs/cgroup/scope/gpuyard-1"))
    ((path, writes),) = limits.plan("unit-1", 1500, 1 << 30)
    assert path == "/sys/fs/cgroup/scope/gpuyard-1/unit-1"
    assert (
        dict(writes).items()
        >= {"cpu.max": "150000 100000", "memory.max": str(1 << 30), "memory.oom.group": "1"}.items()
    )
    assert int(dict(writes)["pids.max"]) > 0


def test_v1_limits_are_written_into_one_group_per_controller() -> None:
    limits = Limits(1, {"cpu": "/c/cpu/gpuyard-1", "memory": "/c/memory/gpuyard-1", "": "/c/unified/gpuyard-1"})
    assert dict(limits.plan("unit-1", 250, 1 << 30)) == {
        "/c/cpu/gpuyard-1/unit-1": [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "25000")],
        "/c/memory/gpuyard-1/unit-1": [("memory.limit_in_bytes", str(1 << 30))],
        "/c/unified/gpuyard-1/unit-1": [],
    }


def test_no_cgroup_file_system_means_no_limits(tmp_path: Path) -> None:
    mounts, mine = tmp_path / "mounts", tmp_path / "mine"
    mounts.write_text("proc /proc proc rw 0 0\n")
    mine.write_text("0::/\n")
    found = cgroup.find(Path("/yard"), mounts, mine)
    assert found.controllers == frozenset()
    assert found.plan("unit-1", 1000, 1 << 30) == []
