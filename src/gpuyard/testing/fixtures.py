"""Fixtures for pytest: `pytest_plugins = ["gpuyard.testing.fixtures"]` in a conftest.py makes them known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gpuyard.testing.machine import Machine


@pytest.fixture
def fake_driver() -> Iterator[Callable[..., Machine]]:
    """Makes emulated machines, as `Machine` does, that are gone when the test ends."""
    with ExitStack() as stack:

        def make(cards: str = "1xRTX4090", **options: Any) -> Machine:
            return stack.enter_context(Machine(cards, **options))

        yield make
