"""Identifiers and names."""

from __future__ import annotations

import re
import secrets
from typing import Final

from gpuyard.model.errors import YardError

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads as something else
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def new_id(prefix: str, now_us: int) -> str:
    """A fresh identifier such as `wl-06f3k2m9q7x4b1c8`: nine characters of time (so that ids sort by age) and nine
    random ones (2**45)."""
    millis = now_us // 1000
    time_part = "".join(_ALPHABET[(millis >> shift) & 31] for shift in range(40, -1, -5))
    random_part = "".join(secrets.choice(_ALPHABET) for _ in range(9))
    return f"{prefix}-{time_part}{random_part}"


def check_name(name: str) -> str:
    """A DNS label: lower-case letters, digits and inner hyphens, at most 63.

    Raises YardError `invalid_name`.
    """
    if _NAME.fullmatch(name) is None:
        raise YardError("invalid_name", value=name[:80])
    return name
