"""What an instance may be called: not confidential, unless verified evidence of this very start of it says more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gpuyard.model.leases import Lease
from gpuyard.model.slices import Guarantee
from gpuyard.store.attestations import Attestation


class Level(StrEnum):
    """The least first. PROCESSOR: memory and processor of its machine; CARDS: its cards as well."""

    NONE = "not_confidential"
    PROCESSOR = "processor"
    CARDS = "processor_and_cards"


@dataclass(frozen=True, slots=True)
class Confidentiality:
    """`because` is a stable word for why it is no more; `until_us` is when the evidence is out of date."""

    level: Level
    because: str
    until_us: int | None = None


def of_instance(held: Sequence[Lease], attested: Sequence[Attestation], now_us: int) -> Confidentiality:
    """The least of its replicas. `held` has the newest lease of each; `attested` what has not ended."""
    if not held:
        return Confidentiality(Level.NONE, "not_running")
    found = [of_replica(lease, attested, now_us) for lease in held]
    return min(found, key=lambda one: list(Level).index(one.level))


def of_replica(lease: Lease, attested: Sequence[Attestation], now_us: int) -> Confidentiality:
    """What is proven of the unit that runs now."""
    if lease.state != "active":
        return Confidentiality(Level.NONE, "not_running")
    mine = [one for one in attested if one.unit == lease.unit_name]
    if not mine:
        return Confidentiality(Level.NONE, "no_evidence")
    newest = max(mine, key=lambda one: one.verified_us)
    if newest.until_us <= now_us:
        return Confidentiality(Level.NONE, "evidence_old")
    if any(cut.guarantee is not Guarantee.EXCLUSIVE for cut in lease.slices):
        return Confidentiality(Level.PROCESSOR, "cards_not_exclusive", newest.until_us)
    if newest.cards < len(lease.slices):
        return Confidentiality(Level.PROCESSOR, "cards_unproven", newest.until_us)
    return Confidentiality(Level.CARDS, "verified", newest.until_us)
