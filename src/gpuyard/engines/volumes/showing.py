"""Folders with a mount inside of them, moved: a mount itself cannot be renamed, the folder that it is in can.

So a mount appears, is replaced and goes in one step, and a program that writes by path on and on never meets the bare
folder below a mount, where what it writes would be stored in plain.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2  # RENAME_EXCHANGE: both names exist throughout


def show(fresh: Path, shown: Path) -> bool:
    """Puts the mount `fresh` where `shown` is; what was there is at `fresh` then, which is told. Raises OSError."""
    if not shown.parent.exists():
        fresh.parent.rename(shown.parent)
        return False
    if not _exchanged(fresh.parent, shown.parent):  # a file system that cannot: one after the other
        former = fresh.parent.with_name(f"{fresh.parent.name}-former")
        shown.parent.rename(former)
        fresh.parent.rename(shown.parent)
        former.rename(fresh.parent)
    return True


def _exchanged(one: Path, other: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:  # an older C library
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0


def hide(shown: Path, aside: Path) -> bool:
    """Takes a mount out of sight with the folder that it is in; what uses it goes on. Whether there was one."""
    try:
        shown.parent.rename(aside.parent)
    except FileNotFoundError:
        return False
    return True


def drop(point: Path) -> None:
    """Folders of what is no mount any more; they are empty, or stay."""
    with contextlib.suppress(OSError):
        point.rmdir()
        point.parent.rmdir()
