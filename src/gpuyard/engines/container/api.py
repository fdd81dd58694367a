"""The Docker-compatible HTTP API over a unix socket: one call each way, no state.

Podman and Docker both answer paths without a version; Docker takes them as its newest, and each newest version has
what is asked for here. Podman's own paths (`/libpod`) are asked for at 4.0.0, the oldest that it still answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx

LIBPOD: Final = "/v4.0.0/libpod"
_CALL_S: Final = 30.0


class EngineRefused(Exception):
    """The engine answered and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineGone(Exception):
    """The engine does not answer: nothing is known about what it runs now."""


class EngineApi:
    """Calls of one engine. May be used from any thread. A call lasts at most half a minute unless it says otherwise."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._client: httpx.Client | None = None

    def get(self, path: str, **query: str) -> Any:
        """The JSON answer. Raises EngineRefused or EngineGone, as all of these do."""
        return self._json("GET", path, query)

    def post(self, path: str, body: object = None, timeout_s: float = _CALL_S, **query: str) -> Any:
        """The JSON answer, or None where there is none."""
        return self._json("POST", path, query, body, timeout_s)

    def delete(self, path: str, **query: str) -> None:
        """Nothing comes back."""
        self._json("DELETE", path, query)

    def inspect(self, name: str) -> dict[str, Any] | None:
        """All about one container; None where there is none."""
        try:
            return self.get(f"/containers/{quote(name)}/json")
        except EngineRefused as error:
            if error.status == 404 or "no such container" in error.message:  # 500 where it went meanwhile
                return None
            raise

    def lines(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """The JSON lines that a long POST answers with, as they come, without a time limit between them."""
        import httpx

        try:
            with self._open().stream("POST", path, params=query, timeout=httpx.Timeout(_CALL_S, read=None)) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    if line.strip():
                        yield json.loads(line)
        except httpx.TransportError as error:
            raise EngineGone(str(error)) from error

    def close(self) -> None:
        """Lets go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> httpx.Client:
        if self._client is None:
            import httpx

            # The host name goes nowhere: it is only what HTTP wants to see in a request.
            self._client = httpx.Client(
                transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://engine", timeout=_CALL_S
            )
        return self._client

    def _json(
        self, method: str, path: str, query: dict[str, str], body: object = None, timeout_s: float = _CALL_S
    ) -> Any:
        import httpx

        try:
            answer = self._open().request(method, path, params=query, json=body, timeout=timeout_s)
        except httpx.TransportError as error:
            raise EngineGone(f"{self.socket}: {error or type(error).__name__}") from error
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None


def _refusal(answer: httpx.Response) -> EngineRefused:
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text or f"HTTP {answer.status_code}"
    return EngineRefused(answer.status_code, message.strip()[:500])
