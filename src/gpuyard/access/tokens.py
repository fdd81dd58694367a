"""Bearer tokens: 256 random bits, of which only a SHA-256 is ever stored.

A fast hash is enough because there is nothing to guess; passwords would need a slow one.
"""

from __future__ import annotations

import hashlib
import secrets

_PREFIX = "gy_"


def new_token() -> str:
    """A fresh token, to be shown once."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is stored, and looked up."""
    return hashlib.sha256(token.encode()).hexdigest()


def from_header(authorization: str | None) -> str | None:
    """The token of an Authorization header, or None where there is none of ours."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.startswith(_PREFIX) else None
