"""An instance is idle only where everything that its policy names is there and quiet, and nobody is inside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuyard.billing.idle import ALL_QUIET, IdlePolicy, Reading, Signal, is_idle

SECOND = 1_000_000
POLICY = IdlePolicy("tn-a", (*ALL_QUIET, Signal.CPU))
BEFORE = Reading(0, 0, 1 << 30, 0, 500, 100)
QUIET = Reading(20 * SECOND, 0, 1 << 30, 0, 500, 100)


def test_all_quiet_is_idle() -> None:
    assert is_idle(POLICY, BEFORE, QUIET)


@pytest.mark.parametrize("absent", ["card_busy_ppm", "card_memory_bytes", "terminals", "network_bytes", "cpu_us"])
def test_a_signal_that_is_absent_is_never_quiet(absent: str) -> None:
    assert not is_idle(POLICY, BEFORE, replace(QUIET, **{absent: None}))


@pytest.mark.parametrize(
    "busy",
    [
        {"card_busy_ppm": 20_000},
        {"card_memory_bytes": 2 << 30},
        {"terminals": 1},
        {"network_bytes": 500 + 20 * 1024 + 1},
        {"network_bytes": 0},  # a counter that began anew tells nothing
        {"cpu_us": 100 + 20 * SECOND // 50 + 1},
    ],
)
def test_a_signal_that_is_busy_is_not(busy: dict[str, int]) -> None:
    assert not is_idle(POLICY, BEFORE, replace(QUIET, **busy))


def test_whoever_has_a_session_open_is_there_whatever_the_policy_asks() -> None:
    of_the_card = IdlePolicy("tn-a", (Signal.CARD,))
    assert is_idle(of_the_card, BEFORE, QUIET)
    assert is_idle(of_the_card, BEFORE, replace(QUIET, terminals=None))  # not asked for, and nobody is known to be in
    assert not is_idle(of_the_card, BEFORE, replace(QUIET, terminals=1))
