"""What the door asks of a dialect, and what it hands to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response

from gpuyard.access.rate_limits import ActionClass
from gpuyard.access.signatures.request import Claim, SignedRequest
from gpuyard.api.asking import Asking


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose signature holds: what is asked, by whom, with which parameters."""

    action: str
    pairs: list[tuple[str, str]]
    claim: Claim
    request_id: str
    invocation: str | None = None  # the SDK's name for this call, the same however often it sends it; not signed


class Dialect(Protocol):
    """One cloud's way to write requests and answers."""

    def action(self, request: SignedRequest) -> str:
        """What is asked; empty where nothing is."""
        ...

    def classify(self, action: str) -> ActionClass:
        """What the action is counted as. Whatever is more than a look may wait for the disk."""
        ...

    def answer(self, caller: Asking, call: Call) -> Response:
        """Does it. Raises Fault, YardError or anything else."""
        ...

    def refuse(self, error: Exception, request: SignedRequest, request_id: str) -> Response:
        """A Fault, a YardError or a SignatureError in the dialect's words."""
        ...
