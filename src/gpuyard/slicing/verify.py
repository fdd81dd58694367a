"""Whether a lease's slices hold: what a program inside of it got, judged against what it may have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee, Slice
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.slicing.mps_daemon import allowed_multiprocessors

TRY_MILLISECONDS: Final = 2000
TRY_PAST_MILLISECONDS: Final = 1  # past the library compute is not judged
# What MPS and the driver's own limits bound past the library. Managed memory may lie on the host: the library's ledger
# bounds that.
BOUNDED_WAYS: Final = ("plain", "async", "physical")
NONE: Final[Mapping[str, int]] = MappingProxyType({})
# What is measured over two seconds by the machine's clock is not exact: tokens saved up before, batches in flight, and
# a machine that does other things meanwhile.
TOLERANCE_PPM: Final = 40_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried. `limit` and `got` are bytes, parts per million, cards or multiprocessors; `held` None:
    it could not be tried on this driver."""

    name: str  # shown, memory, memory_past (the library), compute, cards, multiprocessors
    way: str
    card: str
    limit: int
    got: int | None
    held: bool | None


def past_library(program: str, driver: Path) -> tuple[str, ...]:
    """The command that tries the same with the driver's own library, in this folder, instead of ours."""
    alone = ("LD_PRELOAD", "GPUYARD_SLICE")
    words = [word for name in alone for word in ("-u", name)]
    return "env", *words, f"LD_LIBRARY_PATH={driver}", program, str(TRY_PAST_MILLISECONDS)


def judge_past(slices: Sequence[Slice], printed: bytes) -> tuple[Check, ...]:
    """What the driver's own limits held, where slices say that they do, of a program past the library. Raises YardError
    as `judge` does."""
    report = read_report(printed)
    seen = {str(card.get("uuid")): card for card in report.get("cards") or []}
    checks: list[Check] = []
    for cut in slices:
        if cut.guarantee is Guarantee.KERNEL:
            granted = seen.get(cut.card_uuid, {}).get("granted_bytes", {})
            most = cut.shape.memory_bytes
            for way in BOUNDED_WAYS:
                got = granted.get(way)
                checks.append(Check("memory_past", way, cut.card_uuid, most, got, None if got is None else got <= most))
    return tuple(checks)


def judge(
    slices: Sequence[Slice],
    printed: bytes,
    multiprocessors: Mapping[str, int] = NONE,
    under_mps: Mapping[str, int] = NONE,
) -> tuple[Check, ...]:
    """What held; under MPS the share is judged by how many of a card's `multiprocessors` (by its UUID) a program gets.
    `under_mps`: how many the slice was given, where that is known: of cards whose memory the driver holds too.

    Raises YardError `verify_failed` where the program could not try anything, or did not say."""
    report = read_report(printed)
    told: list[Mapping[str, Any]] = report.get("cards") or []
    seen = {str(card.get("uuid")): card for card in told}
    cut = {each.card_uuid: each for each in slices}
    strange = set(seen) - set(cut)
    checks = [Check("cards", "all", "", len(cut), len(seen), not strange)]
    for uuid, each in cut.items():
        if uuid not in seen:
            raise YardError("verify_failed", reason=f"{uuid}: not seen inside")
        checks += _card(each, seen[uuid], multiprocessors.get(uuid), under_mps.get(uuid, 0))
    return tuple(checks)


def _card(cut: Slice, told: Mapping[str, Any], multiprocessors: int | None, own: int) -> Iterator[Check]:
    memory, share = cut.shape.memory_bytes, cut.shape.compute_ppm
    shown = int(told["shown_bytes"])
    yield Check("shown", "total", cut.card_uuid, memory, shown, shown <= memory)
    for way, got in told["granted_bytes"].items():
        yield Check("memory", way, cut.card_uuid, memory, got, None if got is None else got <= memory)
    if own or cut.guarantee is Guarantee.MPS:
        got, most = int(told["multiprocessors"]), own or allowed_multiprocessors(multiprocessors or 0, share)
        yield Check("multiprocessors", "all", cut.card_uuid, most, got, 0 < got <= most if most else None)
    elif share < SHARE_WHOLE_PPM:
        for way, got in told["measured_ppm"].items():
            held = None if got is None else got <= share + TOLERANCE_PPM
            yield Check("compute", way, cut.card_uuid, share, got, held)


def read_report(printed: bytes) -> dict[str, Any]:
    """What the program printed last. Raises YardError `verify_failed` where it failed, or that is no report."""
    text = printed.decode(errors="replace").strip()
    try:
        report: object = json.loads(text.rpartition("\n")[2])
    except ValueError:
        raise YardError("verify_failed", reason=text[-200:] or "--") from None
    if not isinstance(report, dict):
        raise YardError("verify_failed", reason=text[-200:])
    found = cast("dict[str, Any]", report)
    if "error" in found:
        raise YardError("verify_failed", reason=str(found["error"])[:200])
    return found
