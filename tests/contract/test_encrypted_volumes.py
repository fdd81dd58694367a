"""One suite for both kinds of encrypted volumes: `case` is each of them, `real` those that gocryptfs encrypts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from encrypted_in_hand import must_have_gocryptfs
from gpuyard.engines.volumes import gocryptfs
from gpuyard.engines.volumes.encrypted import EncryptedVolumes
from gpuyard.engines.volumes.folders import VolumeFolders
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.engines.volumes.simulated import SimulatedVolumes
from gpuyard.model.errors import YardError
from gpuyard.model.workloads import Mount

KEY, OTHER = "k" * 64, "o" * 64
DATA, MORE = VolumeId("tenant-a", "data"), VolumeId("tenant-a", "more")
PLAIN = b"plain text that must not be found"


class Case:
    """Volumes below a folder; `again` is what a restarted yard would have."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.volumes: Any = SimulatedVolumes() if kind == "simulated" else self.again()

    def again(self) -> EncryptedVolumes:
        return EncryptedVolumes(self.root / "volumes", look_every_s=0)

    @property
    def folders(self) -> VolumeFolders:
        return VolumeFolders(self.root / "volumes")

    def opened(self, volume: VolumeId = DATA) -> Path:
        """The volume, open, as a unit would see it."""
        wait_for(lambda: self.volumes.open_soon(volume))
        return self.folders.of_unit(volume.tenant_id, Mount(volume.name, "/data"))

    def holder(self, volume: VolumeId = DATA) -> int:
        """The process behind its mount."""
        return gocryptfs.holders(self.folders.sealed_root)[self.folders.sealed(volume)]._pid

    def on_disk(self) -> bytes:
        """All bytes and names that are stored, mounts left out."""
        mounts = gocryptfs.mounted(self.root)
        found = b""
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if Path(folder, name) not in mounts]
            found += b"\n".join([*map(os.fsencode, files), *(Path(folder, name).read_bytes() for name in files)])
        return found

    def close(self) -> None:
        for point in gocryptfs.mounted(self.root):
            gocryptfs.unmount(point, at_once=True)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def code_of(asked: Callable[[], object]) -> str:
    with pytest.raises(YardError) as refused:
        asked()
    return refused.value.code


@contextlib.contextmanager
def made(kind: str, root: Path) -> Iterator[Case]:
    if kind == "gocryptfs":
        must_have_gocryptfs()
    case = Case(kind, root)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(gocryptfs, "SCRYPT_LOG_N", 10)  # the least there is: nobody guesses these keys
    try:
        yield case
    finally:
        monkeypatch.undo()
        case.close()


@pytest.fixture(params=["gocryptfs", "simulated"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    with made(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Case]:
    with made("gocryptfs", tmp_path) as found:
        yield found


# both kinds


def test_a_volume_is_made_once_and_opened_with_its_key(case: Case) -> None:
    case.volumes.create(DATA, KEY)
    assert case.volumes.encrypted() == {DATA}
    assert not case.volumes.is_open(DATA)
    assert code_of(lambda: case.volumes.create(DATA, KEY)) == "volume_exists"
    wait_for(lambda: case.volumes.open_soon(DATA))
    assert case.volumes.is_open(DATA)


def test_neither_a_wrong_key_nor_that_of_another_volume_opens_it(case: Case) -> None:
    case.volumes.create(DATA, KEY)
    case.volumes.create(MORE, OTHER)
    case.volumes.lock(DATA)
    assert code_of(lambda: case.volumes.unlock(DATA, OTHER)) == "volume_key_refused"
    assert code_of(lambda: case.volumes.open_soon(DATA)) == "volume_locked"
    assert not case.volumes.is_open(DATA)
    case.volumes.unlock(DATA, KEY)
    assert code_of(lambda: case.volumes.unlock(DATA, OTHER)) == "volume_key_refused"
    assert case.volumes.is_open(DATA)


def test_an_unknown_volume_has_no_key(case: Case) -> None:
    assert code_of(lambda: case.volumes.unlock(DATA, KEY)) == "volume_not_found"
    assert code_of(lambda: case.volumes.change_key(DATA, KEY, OTHER)) == "volume_not_found"
    case.volumes.remove(DATA)


def test_a_replaced_key_opens_nothing_any_more(case: Case) -> None:
    case.volumes.create(DATA, KEY)
    assert code_of(lambda: case.volumes.change_key(DATA, OTHER, KEY)) == "volume_key_refused"
    case.volumes.change_key(DATA, KEY, OTHER)
    case.volumes.lock(DATA)
    assert code_of(lambda: case.volumes.unlock(DATA, KEY)) == "volume_key_refused"
    case.volumes.unlock(DATA, OTHER)
    assert case.volumes.is_open(DATA)


def test_a_key_that_was_just_given_waits_for_its_unit_and_goes_when_nobody_wants_it_any_more(case: Case) -> None:
    case.volumes.create(DATA, KEY)
    case.volumes.settle(set(), set())
    assert case.volumes.has_key(DATA)
    wait_for(lambda: case.volumes.open_soon(DATA))
    case.volumes.settle({DATA}, {DATA})
    assert case.volumes.is_open(DATA)
    case.volumes.settle(set(), {DATA})
    assert not case.volumes.is_open(DATA)
    assert case.volumes.has_key(DATA)
    case.volumes.settle(set(), set())
    assert code_of(lambda: case.volumes.open_soon(DATA)) == "volume_locked"


def test_a_deleted_volume_leaves_its_name_and_nothing_else(case: Case) -> None:
    case.volumes.create(DATA, KEY)
    wait_for(lambda: case.volumes.open_soon(DATA))
    case.volumes.remove(DATA)
    assert case.volumes.encrypted() == frozenset()
    assert not case.volumes.is_open(DATA)
    case.volumes.create(DATA, OTHER)
    case.volumes.unlock(DATA, OTHER)


# with gocryptfs


def test_the_disk_holds_ciphertext_alone_and_the_key_is_nowhere(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    (real.opened() / "name-in-plain").write_bytes(PLAIN)
    holder = real.holder()
    for file in ("cmdline", "environ"):
        assert KEY.encode() not in Path(f"/proc/{holder}/{file}").read_bytes()
    real.volumes.settle(set(), {DATA})
    stored = real.on_disk()
    assert b"EncryptedKey" in stored
    for secret in (PLAIN, b"name-in-plain", KEY.encode()):
        assert secret not in stored
    assert KEY not in repr(real.volumes.__dict__)
    assert (real.opened() / "name-in-plain").read_bytes() == PLAIN


def test_a_closed_volume_has_no_folder_that_plain_text_could_go_to(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    mount = Mount("data", "/data")
    assert code_of(lambda: real.folders.of_unit("tenant-a", mount)) == "volume_locked"
    opened = real.opened()
    real.volumes.settle({DATA}, set())
    real.volumes.settle(set(), set())
    assert not opened.exists()
    assert code_of(lambda: real.folders.of_unit("tenant-a", mount)) == "volume_locked"


def test_what_has_to_be_encrypted_is_never_taken_for_plain(real: Case) -> None:
    mount = Mount("data", "/data", encrypted=True)
    assert code_of(lambda: real.folders.of_unit("tenant-a", mount)) == "volume_not_encrypted"
    real.folders.plain(DATA).mkdir(parents=True)
    assert code_of(lambda: real.volumes.create(DATA, KEY)) == "volume_exists"
    assert code_of(lambda: real.volumes.unlock(DATA, KEY)) == "volume_not_encrypted"


def test_a_killed_yard_finds_open_what_a_unit_uses_and_closes_the_rest(real: Case) -> None:
    for volume in (DATA, MORE):
        real.volumes.create(volume, KEY)
        (real.opened(volume) / "file").write_bytes(PLAIN)
    holder = real.holder()
    real.volumes = real.again()
    assert real.volumes.is_open(DATA)
    assert not real.volumes.has_key(DATA)
    assert real.volumes.open_soon(DATA)
    assert real.volumes.settle({DATA}, {DATA, MORE}) == ()
    assert real.holder() == holder
    assert (real.opened() / "file").read_bytes() == PLAIN
    assert gocryptfs.mounted(real.root) == {real.folders.opened(DATA)}
    assert code_of(lambda: real.volumes.open_soon(MORE)) == "volume_locked"


def test_a_killed_gocryptfs_is_told_and_opened_anew_while_its_key_is_there(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    (real.opened() / "file").write_bytes(PLAIN)
    os.kill(real.holder(), signal.SIGKILL)
    wait_for(lambda: not real.volumes.is_open(DATA))
    assert code_of(lambda: real.folders.of_unit("tenant-a", Mount("data", "/data"))) == "volume_locked"
    assert real.volumes.settle({DATA}, {DATA}) == (DATA,)
    assert (real.opened() / "file").read_bytes() == PLAIN
    real.volumes = real.again()
    os.kill(real.holder(), signal.SIGKILL)
    wait_for(lambda: not real.volumes.is_open(DATA))
    assert real.volumes.settle({DATA}, {DATA}) == (DATA,)
    assert real.volumes.settle({DATA}, {DATA}) == ()
    with pytest.raises(OSError, match="connect"):
        (real.folders.opened(DATA) / "file").write_bytes(PLAIN)
    real.volumes.unlock(DATA, KEY)
    assert (real.opened() / "file").read_bytes() == PLAIN


def test_two_units_that_start_at_once_share_one_mount(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    seen: list[Path] = []
    threads = [threading.Thread(target=lambda: seen.append(real.opened())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {real.folders.opened(DATA)}
    mark = os.fsencode(real.folders.sealed(DATA))
    behind = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(p) and b"-fg" in _read(p)]
    assert len(behind) == 1


def test_a_unit_that_writes_on_while_its_mount_dies_and_comes_back_leaves_nothing_in_plain(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    real.opened()
    (real.root / "link").symlink_to(real.folders.opened(DATA))
    place = real.folders.opened(DATA)  # a program may well know it
    loop = f"while :; do echo plain text >> link/ticks; mkdir -p link/folder {place}/more; done"
    writer = subprocess.Popen(["sh", "-c", loop], cwd=real.root, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(5):
            os.kill(real.holder(), signal.SIGKILL)
            wait_for(lambda: not real.volumes.is_open(DATA))
            assert real.volumes.settle({DATA}, {DATA}) == (DATA,)
            real.opened()
        size = (real.opened() / "ticks").stat().st_size
        wait_for(lambda: (real.opened() / "ticks").stat().st_size > size)
    finally:
        os.killpg(writer.pid, signal.SIGKILL)  # as a unit ends
        writer.wait()
    real.volumes.lock(DATA)
    (real.root / "link").unlink()
    assert b"plain text" not in real.on_disk()
    assert list(real.folders.opened_root.glob("*/*")) == []


def test_a_mount_is_replaced_on_a_file_system_that_cannot_exchange_folders(
    real: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuyard.engines.volumes.showing._exchanged", lambda *_: False)
    real.volumes.create(DATA, KEY)
    (real.opened() / "file").write_bytes(PLAIN)
    os.kill(real.holder(), signal.SIGKILL)
    wait_for(lambda: not real.volumes.is_open(DATA))
    assert real.volumes.settle({DATA}, {DATA}) == (DATA,)
    assert (real.opened() / "file").read_bytes() == PLAIN
    assert gocryptfs.mounted(real.root) == {real.folders.opened(DATA)}


def test_files_that_are_open_keep_a_volume_open(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    with (real.opened() / "file").open("wb"):
        real.volumes.settle({DATA}, {DATA})
        real.volumes.settle(set(), {DATA})
        assert real.volumes.is_open(DATA)
        assert code_of(lambda: real.volumes.lock(DATA)) == "volume_busy"
        assert code_of(lambda: real.volumes.remove(DATA)) == "volume_busy"
    real.volumes.settle(set(), {DATA})
    assert not real.volumes.is_open(DATA)


def test_work_that_was_cut_short_is_cleared_away(real: Case) -> None:
    real.volumes.create(DATA, KEY)
    half = real.folders.make_unfinished(MORE, "half")
    (half / gocryptfs.CONFIG).write_text("{")
    (real.folders.sealed(DATA) / f"{gocryptfs.CONFIG}.tmp").write_text("of a change that was killed")
    real.volumes = real.again()
    assert real.volumes.encrypted() == {DATA}
    assert not half.exists()
    real.volumes.change_key(DATA, KEY, OTHER)
    real.volumes.unlock(DATA, OTHER)


def test_a_full_disk_makes_no_half_volume_and_changes_no_key(real: Case) -> None:
    disk = real.root / "small"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]).returncode:
        pytest.skip("making a small disk needs root")
    try:
        volumes = EncryptedVolumes(disk / "volumes", look_every_s=0)
        volumes.create(DATA, KEY)
        with contextlib.suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        assert code_of(lambda: volumes.create(MORE, KEY)) == "storage_full"
        assert volumes.encrypted() == {DATA}
        assert code_of(lambda: volumes.change_key(DATA, KEY, OTHER)) == "storage_full"
        (disk / "filling").unlink()
        volumes.lock(DATA)
        volumes.unlock(DATA, KEY)
        opened = VolumeFolders(disk / "volumes").opened(DATA)
        with pytest.raises(OSError, match="No space left"):
            (opened / "file").write_bytes(b"x" * 100_000)
        volumes.lock(DATA)
        assert [path.name for path in (disk / "sealed-volumes/tenant-a").iterdir()] == ["data"]
    finally:
        for point in gocryptfs.mounted(disk):
            gocryptfs.unmount(point, at_once=True)
        subprocess.run(["umount", "-l", disk], check=True)


def test_where_gocryptfs_is_missing_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gocryptfs, "_PATH", str(tmp_path))
    volumes = EncryptedVolumes(tmp_path / "volumes")
    assert volumes.why_not() == "`apt-get install gocryptfs fuse`"
    assert code_of(lambda: volumes.create(DATA, KEY)) == "encryption_unavailable"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
