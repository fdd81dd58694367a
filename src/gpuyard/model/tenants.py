"""Who asks, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """OPERATOR runs the yard; MEMBER acts for one tenant; VIEWER may look at what one tenant has."""

    OPERATOR = "operator"
    MEMBER = "member"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation that leases. `credit_nano` None means it pays later and may not run dry."""

    id: str
    name: str
    credit_nano: int | None
    currency: str
    created_us: int


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant may expect of the queue. A quota of None is no limit; a tenant that may not borrow stays within its
    quota even where the rest is idle. Spot leases do not count against a quota."""

    weight: int = 1
    quota_compute_ppm: int | None = None  # a whole card is 1,000,000
    quota_memory_bytes: int | None = None  # of card memory
    may_borrow: bool = True  # beyond its quota, while others do not want it
    max_priority: int = 0  # the highest tier that its workloads may ask for

    def holds(self, compute_ppm: int, memory_bytes: int) -> bool:
        """Whether so much is within the quota."""
        return (self.quota_compute_ppm is None or compute_ppm <= self.quota_compute_ppm) and (
            self.quota_memory_bytes is None or memory_bytes <= self.quota_memory_bytes
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token proves."""

    token_id: str
    user: str
    role: Role
    tenant_id: str
    expires_us: int | None = None  # none: until it is revoked
