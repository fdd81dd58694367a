"""gocryptfs, the program that encrypts a folder below a FUSE mount: https://nuetzlich.net/gocryptfs/.

Keys go in through its standard input and nowhere else: arguments and environments can be read by others. The master key
of a volume lies wrapped in the volume's own `gocryptfs.conf` (scrypt and AES-GCM): no cryptography here is ours.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from gpuyard.engines.process.processes import everyone, kill_exactly, status
from gpuyard.model.errors import YardError

INSTALL: Final = "apt-get install gocryptfs fuse"
CONFIG: Final = "gocryptfs.conf"
SCRYPT_LOG_N: Final = 16  # gocryptfs's own choice: 64 MiB and a tenth of a second to try a key
_PATIENCE_S: Final = 60
_UNMOUNT_S: Final = 10
_WRONG_KEY: Final = 12  # gocryptfs(1), EXIT CODES
_WORDS: Final = 3  # of a command line that ends with a folder, a mount and a zero byte
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_FUSE: Final = Path("/dev/fuse")


class WrongKeyError(Exception):
    """The key does not open the volume."""


def why_not() -> str | None:
    """What is missing on this machine; None where volumes can be encrypted."""
    if _program("gocryptfs") is None or _unmounter() is None:
        return f"`{INSTALL}`"
    try:
        os.close(os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{_FUSE}: {error.strerror}"
    return None


def initialise(sealed: Path, key: str) -> None:
    """Makes an empty folder an encrypted one. Raises YardError `storage_full` or `volume_failed`."""
    _gocryptfs(["-init", "-q", f"-scryptn={SCRYPT_LOG_N}", "--", str(sealed)], f"{key}\n", sealed)


def mount(sealed: Path, opened: Path, key: str) -> None:
    """Shows the plain text of a folder at an empty one, by a process that outlives the yard.

    Raises WrongKeyError, and YardError `volume_failed`.
    """
    others = ["-allow_other"] if _others_may() else []
    _gocryptfs(["-q", "-nodev", "-nosuid", *others, "--", str(sealed), str(opened)], f"{key}\n", sealed)


def change_key(sealed: Path, old: str, new: str) -> None:
    """Wraps the master key anew, in one step. Raises WrongKeyError, and YardError `storage_full` or `volume_failed`."""
    (sealed / f"{CONFIG}.tmp").unlink(missing_ok=True)  # of a change that was cut short: another would be refused
    _gocryptfs(["-passwd", "-q", "--", str(sealed)], f"{old}\n{new}\n", sealed)


def unmount(opened: Path, at_once: bool = False) -> bool:
    """Whether it is no mount any more. `at_once` takes it off the tree although files are open, or its process died."""
    program = _unmounter()
    if program is None:
        return False
    options = ["-u", "-q", *(["-z"] if at_once else [])]
    try:
        done = subprocess.run(  # noqa: S603
            [program, *options, "--", str(opened)], env=_environment(), capture_output=True, timeout=_UNMOUNT_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def mounted(below: Path) -> frozenset[Path]:
    """What gocryptfs shows below a folder now, its process alive or not."""
    found: set[Path] = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        if after.startswith("fuse.gocryptfs ") and point.is_relative_to(below):
            found.add(point)
    return frozenset(found)


class Holder:
    """The process behind a mount."""

    def __init__(self, pid: int, ticks: int) -> None:
        self._pid = pid
        self._ticks = ticks

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        found = status(self._pid)
        return found is not None and found.ticks == self._ticks and found.state not in "ZX"

    def kill(self) -> None:
        """Ends it, and no stranger."""
        kill_exactly(self._pid, self._ticks)


def holders(below: Path) -> dict[Path, Holder]:
    """The processes that show the plain text of folders below this one, by such folder. One whose mount was taken off
    the tree while files of it were open goes on beside its successor: the youngest is meant."""
    found: dict[Path, Holder] = {}
    for pid, seen in sorted(everyone().items(), key=lambda item: item[1].ticks):
        if seen.state in "ZX":
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        sealed = Path(os.fsdecode(words[-3])) if len(words) > _WORDS else Path()
        if words[0].endswith(b"gocryptfs") and b"-fg" in words and sealed.is_relative_to(below):
            found[sealed] = Holder(pid, seen.ticks)
    return found


def _gocryptfs(arguments: list[str], keys: str, sealed: Path) -> None:
    program = _program("gocryptfs")
    if program is None:
        raise YardError("encryption_unavailable", reason=f"`{INSTALL}`")
    # A file and no pipe: the process that goes on behind a mount would keep a pipe open for ever.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(  # noqa: S603
                [program, *arguments],
                input=keys.encode(),
                stdout=said,
                stderr=said,
                cwd="/",
                env=_environment(),
                timeout=_PATIENCE_S,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise YardError("volume_failed", volume=sealed.name, reason="gocryptfs: timeout") from None
        if done.returncode == 0:
            return
        if done.returncode == _WRONG_KEY:
            raise WrongKeyError
        said.seek(0)
        lines = _COLOUR.sub("", said.read(4096).decode(errors="replace")).splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.startswith("SwitchTo")]
    if any("no space left" in line or "quota exceeded" in line for line in told):
        raise YardError("storage_full", what=str(sealed.parent))
    reason = f"gocryptfs: {told[-1][:200] if told else done.returncode}"
    raise YardError("volume_failed", volume=sealed.name, reason=reason)


def _others_may() -> bool:
    """Whether the mount may be shown to other users: an image's own user is one."""
    if os.geteuid() == 0:
        return True
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _unmounter() -> str | None:
    return _program("fusermount3") or _program("fusermount")


def _environment() -> dict[str, str]:
    return {"PATH": _PATH, "LANG": "C.UTF-8"}


def _unescaped(text: str) -> str:
    """mountinfo writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
