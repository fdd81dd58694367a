"""What several suites share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TEST_IMAGE = "localhost/gpuyard-test:busybox"
TEST_IMAGE_OF_A_USER = "localhost/gpuyard-test:user"  # the same, run as user 1000
_TOOLS = ("podman", "runc", "busybox")


@dataclass(frozen=True)
class TestEngine:
    """A podman with storage of its own and one image in it."""

    __test__ = False
    socket: Path
    podman: bool
    image: str
    image_of_a_user: str
    command: tuple[str, ...]  # podman with this engine's storage, for what only its command line can do


@pytest.fixture(scope="session")
def container_engine() -> Iterator[TestEngine]:
    """A private podman service for the session, with a small image made of this machine's busybox."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        text = f"{', '.join(missing)} not found: apt-get install podman runc busybox-static"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)

    from gpuyard.engines.container.sockets import PrivatePodman, oci_runtime_arguments

    home = Path(tempfile.mkdtemp(prefix="gpuyard-", dir="/tmp"))  # podman takes a run folder of 50 characters at most
    storage = ("--root", str(home / "root"), "--runroot", str(home / "run"))
    arguments = (*storage, *oci_runtime_arguments())
    command = (str(shutil.which("podman")), *arguments)
    _import_busybox(home, command)
    service = PrivatePodman(home, command[0], arguments)
    engine = service.start()
    if engine is None:
        pytest.fail((home / "podman.log").read_text())
    try:
        yield TestEngine(engine.path, engine.podman, TEST_IMAGE, TEST_IMAGE_OF_A_USER, command)
    finally:
        service.stop()
        _end_monitors(home)
        subprocess.run([*command, "rm", "--all", "--force", "--time", "0"], check=False, capture_output=True)
        subprocess.run([*command, "rmi", "--all", "--force"], check=False, capture_output=True)
        subprocess.run(["umount", str(home / "root" / "overlay")], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def _end_monitors(home: Path) -> None:
    """Podman keeps the monitor of an exec for five minutes, and then cleans up in folders that are gone by then."""
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0].endswith(b"/conmon") and str(home / "root").encode() in arguments:
            os.kill(int(process.name), signal.SIGKILL)


def _import_busybox(home: Path, command: tuple[str, ...]) -> None:
    tree = home / "tree"
    (tree / "bin").mkdir(parents=True)
    for folder in ("tmp", "run", "var/tmp", "proc", "sys", "dev", "etc", "workspace"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), tree / "bin" / "busybox")
    names = subprocess.run([tree / "bin" / "busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for name in set(names.split()) - {"busybox"}:
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n")
    archive = home / "tree.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
    for tag, change in ((TEST_IMAGE, "CMD /bin/sh"), (TEST_IMAGE_OF_A_USER, "USER guest")):
        subprocess.run([*command, "import", "--change", change, str(archive), tag], check=True, capture_output=True)
