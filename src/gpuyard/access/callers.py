"""From a key's id to its secret and to whom it stands for: what a dialect needs to know of access."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gpuyard.model.tenants import Identity


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An access key that is in force. The secret is plain here because every signature scheme is an HMAC with it."""

    identity: Identity  # `token_id` is the key's id
    secret: str = field(repr=False)


class KeyRing(Protocol):
    """Where access keys are kept."""

    def find(self, key_id: str) -> KnownKey | None:
        """The key of this id; None where there is none, or none any more."""
        ...
