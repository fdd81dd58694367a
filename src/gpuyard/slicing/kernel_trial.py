"""Whether the driver's own memory limits hold on this machine's cards: programs in a limited group, with our library
and past it, ask for more than they may have, and one beside them for all of its own. Nothing is claimed that was not
seen here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.model.said import Said, Why
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.building import PROBE
from gpuyard.slicing.escape import card_look
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.mps_partitions import PARTITION
from gpuyard.slicing.mps_trial import past_library, probe
from gpuyard.slicing.trial import why
from gpuyard.slicing.verify import BOUNDED_WAYS

_NAME: Final = "kernel-trial"
_MEMORY_BYTES: Final = 2 << 30
# A neighbour has to get at least so much of its limit: the rest is its context and what goes with that.
_NEIGHBOUR_BYTES: Final = 1 << 30
_COMPUTE_PPM: Final = 250_000
_TRY_MILLISECONDS: Final = 1  # compute is not judged here
_AT_ONCE: Final = 4


def try_kernel(keeper: SliceKeeper, card_uuids: Sequence[str]) -> dict[str, Why | None]:
    """Why the driver's limits do not hold on a card, by UUID; None where they do. Cards are tried at the same time, and
    those that programs use now are left alone: trying would take memory from them. Where those are of an earlier yard,
    and the driver holds them as it was told, it was seen to hold."""
    if keeper.kernel is None:
        return dict.fromkeys(card_uuids, Said("trial.kernel_absent"))
    try:
        keeper.strangers()  # sets limits again that somebody changed while there was no yard
        look = card_look(keeper.driver.bare(), keeper.kernel.asked())
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return dict.fromkeys(card_uuids, why(error))
    told: dict[str, Why | None] = dict.fromkeys(keeper.kernel.well_held(look.limits).intersection(card_uuids))
    servers = keeper.mps.is_server if keeper.mps is not None else lambda _: False
    busy = {use.card_uuid for use in look.uses if not servers(use.pid)} - set(told)
    told |= {uuid: Said("trial.kernel_busy") for uuid in busy.intersection(card_uuids)}
    free = [uuid for uuid in card_uuids if uuid not in told]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return told | dict(zip(free, pool.map(lambda uuid: _try(keeper, uuid), free), strict=True))


def _try(keeper: SliceKeeper, uuid: str) -> Why | None:
    mine, beside = f"{_NAME}-{uuid}", f"{_NAME}-beside-{uuid}"
    if keeper.kernel is None:
        return Said("trial.kernel_absent")
    limits = keeper.kernel.limits
    try:
        given = {name: _cut(keeper, name, uuid) for name in (mine, beside)}
        command = [str(keeper.libraries / PROBE), str(_TRY_MILLISECONDS)]
        if keeper.mps is not None and uuid in keeper.kernel_under_mps:
            command = keeper.mps.daemon(uuid).within(command)
        seen = {"CUDA_VISIBLE_DEVICES": uuid}

        def run(name: str, past: bool, placed: bool = True) -> dict[str, Any]:
            client = {key: value for key, value in given[name].items() if key.startswith("CUDA_MPS_")}
            if not placed:
                client.pop(PARTITION)
            bare = past_library(keeper.driver, {**client, **seen})
            inside = {**os.environ, **given[name], **seen}
            return probe(limits.join(limits.group_of_unit(name), command), bare if past else inside)

        with ThreadPoolExecutor(max_workers=2) as both:
            past, neighbour = both.map(lambda name: run(name, True), (mine, beside))
        if (told := _judge_partition(keeper, uuid, mine, past, run)) is not None:
            return told
        # Who gets more than its limit may leave the other nothing at all: that is what is wrong, and is told first.
        unheld = _excess(past, BOUNDED_WAYS) or _excess(neighbour, BOUNDED_WAYS)
        short = unheld or _judge(past, BOUNDED_WAYS) or _judge(neighbour, BOUNDED_WAYS)
        return short or _judge(run(mine, False), None)
    except (YardError, OSError, subprocess.TimeoutExpired, ValueError) as error:
        return why(error)
    finally:
        for name in (mine, beside):
            limits.remove(limits.group_of_unit(name))
            keeper.release(name)
        keeper.watch_mps(uuid)


def _judge_partition(
    keeper: SliceKeeper, uuid: str, name: str, past: Mapping[str, Any], run: Callable[[str, bool, bool], dict[str, Any]]
) -> Why | None:
    """Where the card has static partitions: a program has the multiprocessors of its own, and none without one."""
    partitions = keeper.mps.partitions(uuid) if keeper.mps is not None and uuid in keeper.kernel_under_mps else None
    if partitions is None or "error" in past:
        return None
    own, seen = partitions.of_unit(name, _COMPUTE_PPM).multiprocessors, past["cards"][0]["multiprocessors"]
    if not 0 < seen <= own:
        return Said("trial.mps_multiprocessors", {"seen": seen, "most": own})
    return None if "error" in run(name, True, False) else Said("trial.mps_unplaced_get_in")


def _cut(keeper: SliceKeeper, name: str, uuid: str) -> Mapping[str, str]:
    shape = SliceShape(_MEMORY_BYTES, _COMPUTE_PPM)
    return keeper.for_process(name, [Slice(name, uuid, shape, Guarantee.KERNEL)]).environment


def _judge(told: Mapping[str, Any], ways: Sequence[str] | None) -> Why | None:
    """By these ways of allocating; None: by all."""
    if "error" in told:
        return str(told["error"])[:200]
    granted = told["cards"][0]["granted_bytes"]
    if granted["plain"] is None:
        return Said("trial.nothing_measured")
    if (more := _excess(told, ways)) is not None:
        return more
    for way, got in granted.items():
        if got is not None and (ways is None or way in ways) and got < _NEIGHBOUR_BYTES:
            return Said("trial.got_less", {"got": got, "way": way, "most": _MEMORY_BYTES})
    return None


def _excess(told: Mapping[str, Any], ways: Sequence[str] | None) -> Why | None:
    for card in told.get("cards", ()):
        for way, got in card["granted_bytes"].items():
            if got is not None and (ways is None or way in ways) and got > _MEMORY_BYTES:
                return Said("trial.got_more", {"got": got, "way": way, "most": _MEMORY_BYTES})
    return None
