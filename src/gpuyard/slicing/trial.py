"""Whether the shim holds on this machine's driver: a program on a slice of every card tries to take more than it has.

What is not seen to hold here is not claimed on any offer or lease.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.said import Said, SaidError, Why
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.keeper import SliceKeeper

_NAME: Final = "trial"
_MEMORY_BYTES: Final = 2 << 30
_TIMEOUT_S: Final = 60

# Prints, for each card, why it does not hold there (a text key below "trial." and a number), or null. Only what every
# Python has: it runs beside the driver.
_PROGRAM: Final = """
import ctypes, json, sys
limit, count = int(sys.argv[1]), int(sys.argv[2])
cuda = ctypes.CDLL("libcuda.so.1")
told = []
def look(device):
    context, pointer, free, total = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t(), ctypes.c_size_t()
    result = cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if result:
        return "no_context", result
    cuda.cuCtxSetCurrent(context)
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    if total.value != limit:
        return "shows", total.value
    if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(limit)) != 2:
        return "grants_more", limit
    if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(limit // 8)):
        return "refuses_within", limit
    cuda.cuMemFree_v2(pointer)
    cuda.cuDevicePrimaryCtxRelease_v2(device)
    return None
result = cuda.cuInit(0)
print(json.dumps([("no_init", result) if result else look(device) for device in range(count)]))
"""


def try_ways(keeper: SliceKeeper, card_uuids: Sequence[str], python: str = sys.executable) -> dict[str, Why | None]:
    """Why the shim does not hold on a card, by UUID; None where it does. Where it does not by the library path and does
    by preloading, the keeper preloads it from now on. Without a card to try it stays as it was found last."""
    if not card_uuids:
        return {}
    keeper.preload = False
    by_path = try_cards(keeper, card_uuids, python)
    if all(reason is None for reason in by_path.values()):
        return by_path
    keeper.preload = True
    by_preload = try_cards(keeper, card_uuids, python)
    if list(by_preload.values()).count(None) > list(by_path.values()).count(None):
        return by_preload
    keeper.preload = False
    return by_path


def try_cards(keeper: SliceKeeper, card_uuids: Sequence[str], python: str = sys.executable) -> dict[str, Why | None]:
    """Why the shim does not hold on a card in the way the keeper has it, by UUID; None where it does."""
    slices = [Slice(_NAME, uuid, SliceShape(_MEMORY_BYTES, 500_000), Guarantee.COOPERATIVE) for uuid in card_uuids]
    try:
        cut = keeper.for_process(_NAME, slices)
        environment = {**os.environ, **cut.environment, "CUDA_VISIBLE_DEVICES": ",".join(card_uuids)}
        done = subprocess.run(  # noqa: S603 - this very Python, or a test's
            [python, "-I", "-c", _PROGRAM, str(_MEMORY_BYTES), str(len(card_uuids))],
            env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        told = json.loads(done.stdout) if done.returncode == 0 else None
    except (YardError, OSError, subprocess.TimeoutExpired, ValueError) as error:
        return dict.fromkeys(card_uuids, why(error))
    finally:
        keeper.release(_NAME)
    if told is None:
        said = done.stderr.strip()[-200:] or Said("trial.exit_code", {"code": done.returncode})
        return dict.fromkeys(card_uuids, said)
    found = [None if one is None else Said(f"trial.{one[0]}", {"number": one[1]}) for one in told]
    return dict(zip(card_uuids, found, strict=True))


def why(error: Exception) -> Why:
    """What went wrong, as far as it was said in words."""
    match error:
        case subprocess.TimeoutExpired():
            return Said("trial.timeout", {"seconds": f"{error.timeout:g}"})
        case SaidError():
            return error.said
        case YardError(__cause__=SaidError() as cause):
            return cause.said
        case YardError():
            return str(error.params.get("reason", error.code))
        case _:
            return str(error)


def reasons(told: Mapping[str, Why | None]) -> tuple[Why, ...]:
    """Why cards do not hold, each reason once."""
    return tuple({repr(why): why for why in told.values() if why is not None}.values())


def aside(found: tuple[Why, ...]) -> Said | str:
    """The same behind a sentence about the cards that do; nothing where all do."""
    return Said("trial.aside", {"detail": found}) if found else ""
