"""What both clients share: where the yard is, how a call becomes a request, when a call is tried again."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gpuyard.model.errors import YardError
from gpuyard.sdk.calls import Call, Params
from gpuyard.texts import language_of_environment

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 4
BACKOFF_SECONDS = 0.25
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """A yard's address and the token that opens it."""

    url: str
    token: str | None = None
    language: str | None = None
    ca: str | None = field(default=None, repr=False)  # PEM; see `trust`

    def trust(self) -> ssl.SSLContext | None:
        """What its certificate is held against: the pinned authority alone, or (None) what the library trusts.

        Raises YardError `tls_unusable` for what is no certificate.
        """
        if self.ca is None or not self.url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise YardError("tls_unusable", path="the pinned authority", reason=str(error)) from error

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept-Language": self.language or language_of_environment(), "User-Agent": "gpuyard-sdk"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def socket_url(self, path: str, params: Params) -> str:
        """A WebSocket address; repeated parameters stay repeated."""
        base = self.url.rstrip("/").replace("http", "ws", 1)
        return f"{base}{path}?{urlencode(params, doseq=True)}"

    def unreachable(self, error: Exception) -> YardError:
        """A broken connection as a refusal; of a certificate that is not trusted, one of its own."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return YardError("yard_not_trusted", url=self.url, reason=cause.verify_message)
            cause = cause.__cause__ or cause.__context__
        return YardError("unreachable", url=self.url, reason=str(error) or type(error).__name__)


def arguments(call: Call[Any]) -> dict[str, Any]:
    """What httpx takes for a call."""
    shown: dict[str, Any] = {"params": call.params or None, "headers": dict(call.headers)}
    if call.body is not None:
        shown["content"] = json.dumps(call.body).encode()
        shown["headers"]["Content-Type"] = "application/json"
    if call.timeout_s is not None:
        shown["timeout"] = call.timeout_s
    return shown


def try_again(call: Call[Any], attempt: int, response: httpx.Response | None) -> bool:
    """Whether to send a call once more: only one that may be repeated, and only where it was not answered (None) or the
    yard is busy or just coming back."""
    busy = response is None or response.status_code == 503
    return busy and call.repeatable and attempt < ATTEMPTS


def decoded(target: Target, response: httpx.Response, call: Call[Any] | None = None) -> Any:
    """What a success says; None where it says nothing, and the body itself where the call asks for a file.

    Raises YardError `unreachable` for an answer that no yard gives: something else listens there.
    """
    if call is not None and call.answer is bytes:
        return response.content
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise YardError("unreachable", url=target.url, reason="what answers there is not a yard") from None
