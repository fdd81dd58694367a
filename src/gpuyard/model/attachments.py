"""What a policy counts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KINDS: Final = ("everyone", "organisation", "project", "user", "token")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A policy that counts for a subject. A `fence` allows nothing; without its Allow nothing is allowed."""

    policy: str
    kind: str
    subject: str
    fence: bool
