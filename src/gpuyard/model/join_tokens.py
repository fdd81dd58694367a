"""Tokens that let one machine join once: a secret, and whom the joiner may trust with it.

`gyj_<secret>.<sha256>` names the authority (by the SHA-256 of its certificate) that alone may have signed what the yard
shows; `gyj_<secret>.public` says that the yard shows a certificate that systems trust by themselves.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from gpuyard.model.errors import YardError

_SHAPE: Final = re.compile(r"gyj_([A-Za-z0-9_-]{43})\.([0-9a-f]{64}|public)")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """256 random bits, and the authority's SHA-256 (hex); None where the system's own trust is to decide."""

    secret: str = field(repr=False)
    ca_sha256: str | None

    def text(self) -> str:
        """As it is shown, once."""
        return f"gyj_{self.secret}.{self.ca_sha256 or 'public'}"


def new_join_token(ca_sha256: str | None) -> JoinToken:
    """A fresh one."""
    return JoinToken(secrets.token_urlsafe(32), ca_sha256)


def parse_join_token(text: str) -> JoinToken:
    """What was pasted. Raises YardError `join_token_invalid`, which does not repeat it."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise YardError("join_token_invalid")
    return JoinToken(match[1], None if match[2] == "public" else match[2])


def secret_digest(secret: str) -> str:
    """What is stored. A fast hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
