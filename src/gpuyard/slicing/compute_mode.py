"""Who may open a card: its compute mode, as NVML shows and sets it. Only root sets it.

NVML is asked by another process, as elsewhere: the yard's own must not hold a driver that is reloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from enum import IntEnum
from typing import Final

from gpuyard.slicing.drivers import Driver

_TIMEOUT_S: Final = 30
_PROGRAM: Final = """
import sys, pynvml as n
n.nvmlInit()
card = n.nvmlDeviceGetHandleByUUID(sys.argv[1])
if len(sys.argv) > 2:
    n.nvmlDeviceSetComputeMode(card, int(sys.argv[2]))
print(n.nvmlDeviceGetComputeMode(card))
"""


class CardMode(IntEnum):
    """NVML's numbers. EXCLUSIVE_PROCESS lets one process have contexts: under MPS, its server, and so its clients."""

    DEFAULT = 0
    EXCLUSIVE_THREAD = 1
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


def mode_of(driver: Driver, card_uuid: str) -> CardMode:
    """The card's mode now. Raises OSError where NVML does not tell."""
    return _run(driver, card_uuid)


def set_mode(driver: Driver, card_uuid: str, mode: CardMode) -> None:
    """Raises OSError where it does not become so: only root may."""
    if _run(driver, card_uuid, str(mode.value)) is not mode:
        raise OSError(f"{card_uuid}: compute mode {mode.name}")


def _run(driver: Driver, *words: str) -> CardMode:
    try:
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _PROGRAM, *words],
            env={**os.environ, **driver.bare()}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"NVML does not answer within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2] or "NVML")
    try:
        return CardMode(int(done.stdout))
    except ValueError as error:
        raise OSError(f"NVML names a compute mode that is none: {done.stdout.strip()[:40]}") from error
