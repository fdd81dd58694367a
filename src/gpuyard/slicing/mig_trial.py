"""Whether MIG instances hold on this machine's cards: the smallest is made, and a program inside of it looks around.

What is not seen to hold here is not claimed on any offer or lease.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.mig import MigCard, MigCut, MigPlace, MigProfile
from gpuyard.model.said import Why
from gpuyard.model.slices import Guarantee, Slice
from gpuyard.slicing import mig_calls
from gpuyard.slicing.mig_keeper import MigKeeper
from gpuyard.slicing.trial import why
from gpuyard.slicing.verify_mig import TOLERANCE_PPM

TRIAL: Final = "trial"
_TIMEOUT_S: Final = 60

# Says why it does not hold, or nothing. Only what every Python has: it runs beside the driver.
_PROGRAM: Final = """
import ctypes, sys
most = int(sys.argv[1])
cuda = ctypes.CDLL("libcuda.so.1")
count, total, free = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
def look():
    if result := cuda.cuInit(0):
        return f"cuInit: {result}"
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value != 1:
        return f"it shows {count.value} devices"
    if result := cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0):
        return f"no context: {result}"
    cuda.cuCtxSetCurrent(context)
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    if total.value > most:
        return f"it shows {total.value} bytes"
    if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(most)) != 2:
        return "it grants more than its limit"
    if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(total.value // 8)):
        return "it refuses what is within its limit"
print(look() or "")
"""


def try_instances(keeper: MigKeeper, cards: Sequence[MigCard], python: str = sys.executable) -> dict[str, Why | None]:
    """Why instances do not hold on a card, by UUID; None where they do. A card without room for another is taken to
    hold where all that is on it is of an earlier yard, which tried it."""
    keeper.release(TRIAL)
    return {card.card_uuid: _try(keeper, card, python) for card in cards}


def _try(keeper: MigKeeper, card: MigCard, python: str) -> Why | None:
    if not card.profiles:
        return "the driver does not tell what it can be cut into"
    smallest = min(card.profiles, key=lambda profile: (profile.size, profile.compute_slices, profile.id))
    try:
        there = mig_calls.taken(keeper.driver, [card.card_uuid])[card.card_uuid]
        place = _free(smallest, there)
        if place is None:
            others = keeper.others([card.card_uuid])
            return "other instances take all of it" if others else None
        cut = Slice(TRIAL, card.card_uuid, card.shape(smallest), Guarantee.NONE, MigCut(smallest.name, place))
        return _look(keeper.hold(TRIAL, cut), smallest, python)
    except (YardError, OSError, subprocess.TimeoutExpired) as error:
        return why(error)
    finally:
        keeper.release(TRIAL)


def _look(environment: dict[str, str], profile: MigProfile, python: str) -> Why | None:
    most = profile.memory_bytes + profile.memory_bytes * TOLERANCE_PPM // 1_000_000
    done = subprocess.run(  # noqa: S603 - this very Python, or a test's
        [python, "-I", "-c", _PROGRAM, str(most)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return done.stderr.strip()[-200:] or f"exit code {done.returncode}"
    return done.stdout.strip() or None


def _free(profile: MigProfile, there: Sequence[MigPlace]) -> MigPlace | None:
    places = (MigPlace(profile.id, start, profile.size) for start in profile.starts)
    return next((place for place in places if not any(place.meets(other) for other in there)), None)
