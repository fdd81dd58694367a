"""MIG instances made and removed through NVML by another process: the yard's own must not hold a driver that is
reloaded. Only root may, on a real card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from gpuyard.model.mig import MigPlace
from gpuyard.slicing.drivers import Driver

_TIMEOUT_S: Final = 60
_PROGRAM: Final = """
import json, sys, pynvml as n
from gpuyard.hardware import mig_nvidia as mig
from gpuyard.model.mig import MigPlace
n.nvmlInit()
what, *words = json.loads(sys.argv[1])
if what == "taken":
    told = {}
    for card in words:
        seen = mig.read(n, n.nvmlDeviceGetHandleByUUID(card))
        told[card] = [] if seen is None else [[p.profile_id, p.start, p.size] for p in seen.taken]
else:
    handle, place = n.nvmlDeviceGetHandleByUUID(words[0]), MigPlace(*words[1:])
    told = (mig.make if what == "make" else mig.remove)(n, handle, place)
print(json.dumps(told))
"""


def taken(driver: Driver, card_uuids: Sequence[str]) -> dict[str, tuple[MigPlace, ...]]:
    """Every instance on these cards, whoever made it. Raises OSError where NVML does not tell."""
    told = _run(driver, "taken", *card_uuids)
    if not isinstance(told, dict):
        raise OSError("NVML")
    return {card: tuple(MigPlace(*numbers) for numbers in places) for card, places in told.items()}


def make(driver: Driver, card_uuid: str, place: MigPlace) -> str:
    """Has an instance exactly there, as `mig_nvidia.make` does; its name for CUDA. Raises OSError where that fails."""
    return str(_run(driver, "make", card_uuid, place.profile_id, place.start, place.size))


def remove(driver: Driver, card_uuid: str, place: MigPlace) -> None:
    """Removes the instance there; none is no error. Raises OSError where it is in use, or this user may not."""
    _run(driver, "remove", card_uuid, place.profile_id, place.start, place.size)


def _run(driver: Driver, *words: object) -> object:
    try:
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _PROGRAM, json.dumps(words)],
            env={**os.environ, **driver.bare()}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"NVML does not answer within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2] or "NVML")
    return json.loads(done.stdout)
