"""Whether encrypted volumes can be tried here."""

from __future__ import annotations

import os
import shutil

import pytest

from gpuyard.engines.volumes import gocryptfs


def must_have_gocryptfs() -> None:
    """Skips where there is no gocryptfs or no FUSE. Under CI the programs are installed, and a missing one fails; a
    kernel without FUSE cannot be helped there either."""
    reason = gocryptfs.why_not()
    if reason is None:
        return
    text = f"encrypted volumes need gocryptfs and FUSE ({reason}): {gocryptfs.INSTALL}"
    programs = shutil.which("gocryptfs") and (shutil.which("fusermount3") or shutil.which("fusermount"))
    if os.environ.get("CI") and not programs:
        pytest.fail(text)
    pytest.skip(text)
