"""An encrypted volume under a real yard that is killed, and what is told on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from encrypted_in_hand import must_have_gocryptfs
from gpuyard.engines.volumes import gocryptfs
from real_yard import RealYard, wait_for

pytestmark = pytest.mark.slow

WRITER = "while :; do date >> data/ticks; sleep 0.1; done"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    must_have_gocryptfs()
    yard = RealYard(tmp_path, "--simulate", "2xRTX4090", "--runtime", "process")
    yard.up()
    yield yard
    yard.close()
    for point in gocryptfs.mounted(tmp_path):
        gocryptfs.unmount(point, at_once=True)


def mounts(yard: RealYard) -> set[Path]:
    return set(gocryptfs.mounted(yard.state))


def ticks(yard: RealYard) -> int:
    (point,) = mounts(yard)
    return len((point / "ticks").read_text().splitlines())


def test_a_unit_keeps_its_volume_over_the_death_of_the_yard_and_the_next_one_needs_the_key(yard: RealYard) -> None:
    key, wrong = yard.home / "key", yard.home / "wrong"
    for file in (key, wrong):
        file.write_text(yard.run("volumes", "key", "new"))
    launch = ("run", "--instance", "--offer", "rtx4090-half", "--mount", "data:data", "--volume-key", str(key))
    told = yard.cli(*launch, "--name", "writer", "--", "sh", "-c", WRITER)
    assert told.returncode == 0
    assert "if you lose it, what the volume holds is lost" in told.stderr
    wait_for(lambda: ticks(yard) > 1)

    yard.kill()
    before = ticks(yard)
    wait_for(lambda: ticks(yard) > before + 2)
    yard.up()
    assert [each["state"] for each in yard.json("volumes", "list")] == ["open"]
    (log,) = yard.home.glob("up-2.log")
    before = ticks(yard)
    wait_for(lambda: ticks(yard) > before + 2)

    yard.run("stop", "writer")
    wait_for(lambda: not mounts(yard))
    stored = b"".join(file.read_bytes() for file in yard.state.rglob("*") if file.is_file())
    assert key.read_text().strip().encode() not in stored
    assert key.read_text().strip() not in log.read_text()

    yard.run("start", "writer", "--no-wait")
    wait_for(lambda: "needs its key" in yard.run("show", "writer"))
    refused = yard.cli("volumes", "unlock", "data", "--key", str(wrong))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (3, 1)
    assert "This is not the key of the volume 'data'" in refused.stderr
    yard.run("volumes", "unlock", "data", "--key", str(key))
    wait_for(lambda: mounts(yard) and ticks(yard) > before + 10)

    (holder,) = gocryptfs.holders(yard.state).values()
    os.kill(holder._pid, signal.SIGKILL)
    wait_for(lambda: "volume.died" in yard.run("events"))
    wait_for(lambda: [each["state"] for each in yard.json("volumes", "list")] == ["open"])
    before = ticks(yard)
    wait_for(lambda: ticks(yard) > before + 2)  # the same unit
    yard.run("rm", "writer")
    yard.run("volumes", "rm", "data")
    assert yard.json("volumes", "list") == []
    assert not mounts(yard)
