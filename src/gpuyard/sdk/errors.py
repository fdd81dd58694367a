"""What the yard refuses, as the error that it is on the other side of the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping

from gpuyard.model.errors import STATUS_BY_CODE, YardError


class Refused(YardError):
    """A refusal with the sentence that the yard said it in."""

    def __init__(self, code: str, detail: str, /, **params: object) -> None:
        super().__init__(code if code in STATUS_BY_CODE else "internal", **params)
        self.detail = detail


def refusal(status: int, body: bytes) -> YardError:
    """The error of an answer that is not a success: ours, or whatever stands between us and the yard."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, Mapping) and "code" in told:
        params = told.get("params")
        known = {str(key): value for key, value in params.items()} if isinstance(params, Mapping) else {}
        return Refused(str(told["code"]), str(told.get("detail") or told["code"]), **known)
    return YardError("unreachable", url="--", reason=f"it answers HTTP {status}, but not as a yard does")
