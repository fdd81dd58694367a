"""Whether an instance is idle. Every signal that the policy names must be there and quiet; one that is absent proves
nothing, so an instance of which it is absent is never idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpuyard.model.units import HOUR_US

CARD_QUIET_PPM: Final = 10_000
MEMORY_QUIET_BYTES: Final = 1 << 20
NETWORK_QUIET_BYTES_A_SECOND: Final = 1024
CPU_QUIET_PPM: Final = 20_000  # of one core: a shell that waits, a notebook's server that polls


class Signal(StrEnum):
    """What can be looked at."""

    CARD = "card"
    MEMORY = "memory"
    TERMINAL = "terminal"
    NETWORK = "network"
    CPU = "cpu"


ALL_QUIET: Final = (Signal.CARD, Signal.MEMORY, Signal.TERMINAL, Signal.NETWORK)


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """What must be quiet, and for how long before the yard warns and before it pauses the instance."""

    tenant_id: str
    signals: tuple[Signal, ...] = ALL_QUIET
    warn_us: int = HOUR_US
    pause_us: int = 2 * HOUR_US


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a unit; sums and levels as they are. None: it cannot be had."""

    at_us: int
    card_busy_ppm: int | None = None
    card_memory_bytes: int | None = None
    terminals: int | None = None
    network_bytes: int | None = None
    cpu_us: int | None = None


def quiet_signals(before: Reading | None, now: Reading) -> frozenset[Signal]:
    """The signals that are there and quiet. Those that are changes need two looks."""
    quiet: set[Signal] = set()
    if now.card_busy_ppm is not None and now.card_busy_ppm <= CARD_QUIET_PPM:
        quiet.add(Signal.CARD)
    if now.terminals == 0:
        quiet.add(Signal.TERMINAL)
    if before is None or now.at_us <= before.at_us:
        return frozenset(quiet)
    passed_us = now.at_us - before.at_us
    memory = _change(before.card_memory_bytes, now.card_memory_bytes)
    if memory is not None and abs(memory) <= MEMORY_QUIET_BYTES:
        quiet.add(Signal.MEMORY)
    network = _change(before.network_bytes, now.network_bytes)
    if network is not None and 0 <= network * 1_000_000 <= NETWORK_QUIET_BYTES_A_SECOND * passed_us:
        quiet.add(Signal.NETWORK)
    cpu = _change(before.cpu_us, now.cpu_us)
    if cpu is not None and 0 <= cpu * 1_000_000 <= CPU_QUIET_PPM * passed_us:
        quiet.add(Signal.CPU)
    return frozenset(quiet)


def _change(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def is_idle(policy: IdlePolicy, before: Reading | None, now: Reading) -> bool:
    """Whether everything that the policy names is there and quiet, and nobody is known to be inside: an open session is
    somebody, even where the policy does not ask for terminals and nothing is typed."""
    return bool(policy.signals) and not now.terminals and quiet_signals(before, now).issuperset(policy.signals)


def saved_nano(price_per_hour_nano: int, paused_us: int, until_us: int) -> int:
    """What a pause saved, rounded down: nothing is claimed that was not."""
    return max(0, until_us - paused_us) * price_per_hour_nano // HOUR_US
