"""Quotas: how much of what an organisation, a project or a user may hold at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KINDS: Final = ("organisation", "project", "user")


class What(StrEnum):
    """What is limited, each in its unit: millionths of a card, bytes, nano-units of money an hour."""

    CARDS = "card_share_ppm"
    CARD_MEMORY = "card_memory_bytes"
    STORAGE = "storage_bytes"
    SPEND = "spend_per_hour_nano"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit. Beyond `soft` it is told, beyond `hard` refused; None is no limit."""

    kind: str
    subject: str  # an organisation's or tenant's id, or tenant id/user
    what: What
    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class Breach:
    """A quota that a claim would go beyond, and where to."""

    quota: Quota
    wanted: int

    @property
    def hard(self) -> bool:
        """Whether it must be refused."""
        return self.quota.hard is not None and self.wanted > self.quota.hard


def breaches(
    quotas: Sequence[Quota], held: Mapping[tuple[str, str], Mapping[What, int]], claim: Mapping[What, int]
) -> list[Breach]:
    """The quotas that `claim` on top of what each subject holds goes beyond, those that refuse it first. A claim of
    nothing breaks nothing, however much is held: who is over a quota that was lowered goes on with what they have."""
    found: list[Breach] = []
    for quota in quotas:
        asked = claim.get(quota.what, 0)
        if asked <= 0:
            continue
        wanted = held.get((quota.kind, quota.subject), {}).get(quota.what, 0) + asked
        limits = [limit for limit in (quota.soft, quota.hard) if limit is not None]
        if any(wanted > limit for limit in limits):
            found.append(Breach(quota, wanted))
    return sorted(found, key=lambda breach: not breach.hard)
