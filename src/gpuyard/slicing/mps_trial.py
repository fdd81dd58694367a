"""Whether MPS holds on this machine's cards: programs on a slice of each try to take more than it is, inside of the
library and past it. Nothing is claimed on any offer or lease that was not seen here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.model.said import Said, Why
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.building import PROBE
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.escape import card_look
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.mps_daemon import PIPES, Ceiling, allowed_multiprocessors
from gpuyard.slicing.trial import why
from gpuyard.slicing.verify import BOUNDED_WAYS

_NAME: Final = "mps-trial"
_MEMORY_BYTES: Final = 2 << 30
_COMPUTE_PPM: Final = 250_000
_TRY_MILLISECONDS: Final = 1  # what a card's time gives is not judged: the multiprocessors are
_TIMEOUT_S: Final = 60
_AT_ONCE: Final = 8

# Prints how many multiprocessors each card has, by UUID, as a program sees it that is no client of MPS. No context is
# made: a card that is exclusive to others tells too.
_PROGRAM: Final = """
import ctypes, json, sys, uuid
cuda, count, found = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), {}
if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
    sys.exit("no driver")
for device in range(count.value):
    raw, number = (ctypes.c_ubyte * 16)(), ctypes.c_int()
    if not (cuda.cuDeviceGetUuid_v2(raw, device) or cuda.cuDeviceGetAttribute(ctypes.byref(number), 16, device)):
        found[f"GPU-{uuid.UUID(bytes=bytes(raw))}"] = number.value
print(json.dumps(found))
"""


def multiprocessors(driver: Driver, card_uuids: Sequence[str]) -> dict[str, int]:
    """How many multiprocessors each of these cards has. Raises OSError where the driver does not tell."""
    environment = past_library(driver, {"CUDA_VISIBLE_DEVICES": ",".join(card_uuids)})
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-I", "-c", _PROGRAM],
        env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(done.stderr.strip()[-200:])
    return json.loads(done.stdout)


def try_mps(keeper: SliceKeeper, card_uuids: Sequence[str]) -> dict[str, Why | None]:
    """Why MPS does not hold on a card, by UUID; None where it does. Cards that are under MPS already stay so, all
    others are put back as they were. Cards are tried at the same time: each has a daemon of its own."""
    told: dict[str, Why | None] = {}
    try:
        keeper.multiprocessors.update(multiprocessors(keeper.driver, card_uuids))
        busy = {use.card_uuid for use in card_look(keeper.driver.bare()).uses}
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return dict.fromkeys(card_uuids, why(error))
    under_mps = set(keeper.ceilings())
    for uuid in card_uuids:
        if uuid in keeper.cooperative_cards():
            told[uuid] = Said("trial.mps_slices")
        elif uuid in under_mps and keeper.mps is not None and keeper.mps.runs_divided(uuid):
            told[uuid] = None  # its slices may have all of its parts, so that none is left to try in
        elif uuid in busy - under_mps:
            told[uuid] = Said("trial.mps_busy")
    free = [uuid for uuid in card_uuids if uuid not in told]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        told |= zip(free, pool.map(lambda uuid: _try(keeper, uuid), free), strict=True)
    return told


def _try(keeper: SliceKeeper, uuid: str) -> Why | None:
    shape, name = SliceShape(_MEMORY_BYTES, _COMPUTE_PPM), f"{_NAME}-{uuid}"
    try:
        given = keeper.for_process(name, [Slice(name, uuid, shape, Guarantee.MPS)]).environment
        if keeper.mps is None:
            return Said("trial.mps_absent")
        pipes = str(keeper.mps.pipes(uuid))
        seen = {"CUDA_VISIBLE_DEVICES": uuid}
        bound = Ceiling(_COMPUTE_PPM, _MEMORY_BYTES).variables(pipes)
        command = keeper.mps.daemon(uuid).within([str(keeper.libraries / PROBE), str(_TRY_MILLISECONDS)])
        inside = probe(command, {**os.environ, **given, **seen})
        outside = probe(command, past_library(keeper.driver, {**seen, **bound}))
        past = probe(command, past_library(keeper.driver, seen))
        return _judge(keeper, uuid, inside, outside, past)
    except (YardError, OSError, subprocess.TimeoutExpired, ValueError) as error:
        return why(error)
    finally:
        keeper.release(name)
        keeper.watch_mps(uuid)


def _judge(
    keeper: SliceKeeper, uuid: str, inside: Mapping[str, Any], outside: Mapping[str, Any], past: Mapping[str, Any]
) -> Why | None:
    """`inside`: with the library; `outside`: a client of MPS without it; `past`: no client at all."""
    most = allowed_multiprocessors(keeper.multiprocessors[uuid], _COMPUTE_PPM)
    for told in (inside, outside):
        if "error" in told:
            return str(told["error"])[:200]
        (card,) = told["cards"]
        if not 0 < card["multiprocessors"] <= most:
            return Said("trial.mps_multiprocessors", {"seen": card["multiprocessors"], "most": most})
        for way, got in card["granted_bytes"].items():
            if (told is inside or way in BOUNDED_WAYS) and got is not None and got > _MEMORY_BYTES:
                return Said("trial.got_more", {"got": got, "way": way, "most": _MEMORY_BYTES})
    if "error" not in past:
        return Said("trial.mps_others_get_in")
    return None


def probe(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - a program of ours
        command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    last = done.stdout.strip().rpartition("\n")[2]
    return json.loads(last) if last.startswith("{") else {"error": (done.stderr or done.stdout).strip()[-200:] or "--"}


def past_library(driver: Driver, more: Mapping[str, str]) -> dict[str, str]:
    """Of a program past the library, and no client of any daemon that `more` does not name."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
    return {**clean, **driver.bare(), PIPES: "/nonexistent", **more}
