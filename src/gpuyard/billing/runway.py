"""How long a wallet lasts, and which alerts that calls for."""

from __future__ import annotations

from typing import Final

from gpuyard.model.units import HOUR_US, SECOND_US

ALERTS_US: Final = (24 * HOUR_US, HOUR_US, 600 * SECOND_US)


def runway_us(balance_nano: int, burn_per_hour_nano: int) -> int | None:
    """How long the balance lasts at what an hour costs now; None where nothing is being spent."""
    if burn_per_hour_nano <= 0:
        return None
    return max(0, balance_nano) * HOUR_US // burn_per_hour_nano


def crossed(runway: int | None, told: int) -> tuple[tuple[int, ...], int]:
    """The alerts to tell now, and how many have been told after them.

    Each is told once per crossing: one that was told is told again only after the run-way was above it in between.
    `told` counts from the longest alert.
    """
    below = 0 if runway is None else sum(runway < alert for alert in ALERTS_US)
    return ALERTS_US[told:below], below
