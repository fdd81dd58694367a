"""Samples and traces that are too large, or not ours, to be kept here: a folder `shared/data` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """A file or folder of it. Where it is missing the test is skipped by name, or fails where CI=true."""
    found = FOLDER / name
    if not found.exists():
        told = f"shared/data/{name} is not beside this checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return found
