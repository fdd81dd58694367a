"""Whether the MIG instance of a lease holds: what a program inside of it got, judged against the instance's profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.model.mig import MigProfile
from gpuyard.model.slices import Slice
from gpuyard.slicing.verify import Check, read_report

# What CUDA shows of an instance may differ from what NVML says of its profile by what the driver keeps or rounds.
TOLERANCE_PPM: Final = 50_000


def judge_instance(cut: Slice, profile: MigProfile | None, printed: bytes) -> tuple[Check, ...]:
    """What held: that one device is seen, and no more of it than the instance has. `profile` is that of the instance,
    where the card still names it.

    Raises YardError `verify_failed` where the program could not try anything, or did not say.
    """
    report = read_report(printed)
    cards: list[Mapping[str, Any]] = report.get("cards") or []
    checks = [Check("cards", "all", "", 1, len(cards), len(cards) == 1)]
    if not cards:
        raise YardError("verify_failed", reason=f"{cut.card_uuid}: not seen inside")
    for card in cards[:1]:
        checks += _instance(cut, profile, card)
    return tuple(checks)


def _instance(cut: Slice, profile: MigProfile | None, told: Mapping[str, Any]) -> Iterator[Check]:
    memory, shown = cut.shape.memory_bytes, int(told["shown_bytes"])
    most = memory + memory * TOLERANCE_PPM // 1_000_000
    yield Check("shown", "total", cut.card_uuid, memory, shown, shown <= most)
    for way, got in told["granted_bytes"].items():
        if way == "managed":  # lies in this machine's memory too, and so may be more
            continue
        yield Check("memory", way, cut.card_uuid, memory, got, None if got is None else got <= most)
    limit, got = 0 if profile is None else profile.multiprocessors, int(told["multiprocessors"])
    yield Check("multiprocessors", "all", cut.card_uuid, limit, got, 0 < got <= limit if limit else None)
