"""A refusal in a dialect's own words."""

from __future__ import annotations

from collections.abc import Mapping

from gpuyard.model.errors import YardError
from gpuyard.texts import error_text


class Fault(Exception):
    """What a client of the dialect is told: its code, a sentence, and the HTTP status that goes with it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code = code
        self.message = message
        self.status = status
        super().__init__(code, message, status)


def from_yard(error: YardError, codes: Mapping[str, tuple[str, int]], other: str) -> Fault:
    """The yard's refusal under the dialect's code for it. What the yard itself could not do stays a 5xx: those say that
    nothing was changed, and a client may try again."""
    code, status = codes.get(error.code, (other, 503 if error.status >= 500 else 400))
    return Fault(code, error_text(error.code, "en", error.params), status)
