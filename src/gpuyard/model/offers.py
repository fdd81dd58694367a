"""What can be rented."""

from __future__ import annotations

from dataclasses import dataclass

from gpuyard.model.slices import Guarantee, SliceShape


@dataclass(frozen=True, slots=True)
class Offer:
    """A slice shape of a card model with its CPU and memory, and the price per hour of the on-demand option."""

    name: str  # rtx4090-quarter
    card_model: str  # RTX4090
    shape: SliceShape
    cpu_milli: int
    memory_bytes: int
    guarantee: Guarantee
    not_protected: tuple[str, ...]  # what the guarantee does not cover, as text keys
    price_per_hour_nano: int
    currency: str
    available: int = 0  # how many could be granted now
    mig: bool = False  # a MIG instance; `name` ends in its profile
