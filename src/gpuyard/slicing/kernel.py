"""Builds the placement kernel of the scheduler, as `building` does the other native parts.

A wheel carries it; a checkout builds it on first use into a folder named by its content.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gpuyard.model.errors import YardError

SOURCES: Final = Path(__file__).parents[1] / "scheduling" / "native"
NAME: Final = "libgpuyard_placing.so"
CARRIED: Final = SOURCES / "lib" / NAME
_FLAGS: Final = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")


def kernel() -> Path:
    """The library. Raises YardError `native_unavailable` where none came and none can be built."""
    if CARRIED.exists():
        return CARRIED
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuyard"
    built = cache / f"placing-{_content_hash()}" / NAME
    if built.exists():
        return built
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise YardError("native_unavailable", reason="cc: apt-get install gcc libc6-dev")
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        try:
            build(Path(scratch, NAME), (compiler,))
        except subprocess.CalledProcessError as error:
            raise YardError("native_unavailable", reason=error.stderr.strip()[-400:]) from error
        Path(scratch, NAME).replace(built)  # two that build at once do the same
    return built


def build(out: Path, compiler: Sequence[str]) -> None:
    """Builds the library. Raises subprocess.CalledProcessError with what the compiler said."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run(  # noqa: S603 - a compiler that was found on this machine, and files of this package
        [*compiler, *_FLAGS, "-Wl,--build-id=none", *sources, "-o", str(out)],
        check=True,
        capture_output=True,
        text=True,
    )


def _content_hash() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    for path in [Path(__file__), *sorted(SOURCES.glob("*.[ch]"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
