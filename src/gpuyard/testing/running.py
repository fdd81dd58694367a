"""Running a command on an emulated machine."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Literal

from gpuyard.testing.machine import DRIVER, Machine


def emulate(
    cards: str, command: Sequence[str], clock: Literal["real", "virtual"] = "real", driver: str | None = None
) -> int:
    """Runs a command on a machine with these cards, and this version of the driver, and gives its exit code, 128 + n
    where signal n ended it.

    Raises ValueError and YardError as `Machine` does, and OSError where the command cannot be started.
    """
    with Machine(cards, clock=clock, driver_version=driver or DRIVER) as machine:
        code = subprocess.run(list(command), env=machine.env(), check=False).returncode  # noqa: S603
    return 128 - code if code < 0 else code
