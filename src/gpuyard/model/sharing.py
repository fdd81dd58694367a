"""How what is on a card shares it. Slices of two sorts are never on one card."""

from __future__ import annotations

from enum import StrEnum


class Sharing(StrEnum):
    """What a tenant may ask for."""

    SHARED = "shared"  # as the yard shares its cards
    MPS = "mps"  # at the same time, under NVIDIA's Multi-Process Service
    TIME_SLICE = "time_slice"  # one after the other, without that service
    EXCLUSIVE = "exclusive"  # with nobody: whole cards
