from __future__ import annotations

import os
from pathlib import Path

from gpuyard.hardware import local_node


def test_this_machine_has_a_cpu_and_memory() -> None:
    node = local_node.local_node("here")
    assert node.name == "here"
    assert 0 < node.cpu_milli <= (os.cpu_count() or 1) * 1000
    assert node.memory_bytes > 64 << 20
    assert not node.simulated


def test_a_cgroup_that_allows_less_is_believed(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert local_node.cpu_milli(tmp_path) == 500
    assert local_node.memory_bytes(tmp_path) == 1 << 30


def test_a_cgroup_without_a_limit_leaves_the_whole_machine(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert local_node.cpu_milli(tmp_path) == local_node.cpu_milli(tmp_path / "none")
    assert local_node.memory_bytes(tmp_path) == local_node.memory_bytes(tmp_path / "none")


def test_a_cgroup_cannot_give_more_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000\n")
    (tmp_path / "memory.max").write_text(f"{1 << 60}\n")
    assert local_node.cpu_milli(tmp_path) == len(os.sched_getaffinity(0)) * 1000
    assert local_node.memory_bytes(tmp_path) < 1 << 60


def test_numa_nodes_are_read_from_the_kernel(tmp_path: Path) -> None:
    for name in ("node0", "node1", "node10", "possible", "nodex"):
        (tmp_path / name).mkdir()
    assert local_node.numa_nodes(tmp_path) == (0, 1, 10)
    assert local_node.numa_nodes(tmp_path / "none") == ()
