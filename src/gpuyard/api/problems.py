"""Every refusal as RFC 9457 problem details, in the caller's language."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Match
from starlette.websockets import WebSocket

from gpuyard.api.rendering import json_bytes
from gpuyard.model.errors import YardError
from gpuyard.texts import error_text, language_of_header, text

log = logging.getLogger(__name__)

TYPE_BASE = "urn:gpuyard:error:"
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def problem(error: YardError, language: str, instance: str | None = None) -> dict[str, object]:
    """The body of a problem answer."""
    return {
        "type": TYPE_BASE + error.code,
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error_text(error.code, language, error.params),
        "code": error.code,
        "instance": instance,
        "params": {key: str(value) for key, value in error.params.items()},
    }


def problem_response(error: YardError, language: str, instance: str | None = None) -> Response:
    """A problem answer; 401 names the scheme, 429 and 503 when to come back."""
    headers: Mapping[str, str] = {
        401: {"WWW-Authenticate": "Bearer"},
        429: {"Retry-After": str(error.params.get("seconds", 1))},
        503: {"Retry-After": "1"},
    }.get(error.status, {})
    body = json_bytes(problem(error, language, instance))
    return Response(body, status_code=error.status, media_type="application/problem+json", headers=dict(headers))


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem answer; nothing ever shows a traceback."""

    @app.exception_handler(YardError)
    async def _yard_error(request: Request, error: YardError) -> Response:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, invalid(error.errors(), language_of(request)))

    @app.exception_handler(WebSocketRequestValidationError)
    async def _invalid_socket(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await socket.send_denial_response(_answer(socket, invalid(error.errors(), language_of(socket))))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        if error.status_code == 405:
            allowed = ", ".join(_allowed(request)) or "--"
            response = _answer(
                request, YardError("method_not_allowed", method=request.method, path=path, allowed=allowed)
            )
            response.headers["Allow"] = allowed
            return response
        if error.status_code == 404:
            return _answer(request, YardError("not_found", path=path[:200]))
        reason = "unreadable_body" if error.status_code == 400 else str(error.detail)
        return _answer(request, YardError("invalid_request", reason=reason))

    @app.exception_handler(Exception)
    async def _internal(request: Request, error: Exception) -> Response:
        reference = secrets.token_hex(4)
        told = {"reference": reference, "path": request.scope["path"]}
        log.exception("request_failed", exc_info=error, extra=told)
        return _answer(request, YardError("internal", reference=reference))


def _allowed(request: Request) -> list[str]:
    """The methods that a path takes: several routes may share it, and the framework names the first one's alone."""
    routes = request.app.routes
    return [m for m in _METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]


# Patterns that people are told in words.
_IN_WORDS: Final = {
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$": "invalid.name",
    r"^\d{4}-\d{2}-\d{2}$": "invalid.day",
    r"^\d{4}-(0[1-9]|1[0-2])$": "invalid.month",
    r"^[A-Za-z0-9][A-Za-z0-9+=,.@_-]{0,127}$": "invalid.policy_name",
    r"^[^\x00-\x1f\x7f]+$": "invalid.one_line",
}


def invalid(errors: Sequence[Any], language: str) -> YardError:
    """The first thing that a request's shape does not allow: where, and what is expected there."""
    first = errors[0]
    where = ".".join(str(part)[:100] for part in first["loc"])
    key = f"invalid.{first['type']}"
    if first["type"] == "string_pattern_mismatch":
        key = _IN_WORDS.get(first["ctx"]["pattern"], key)
    facts = {name: _listed(value, language) for name, value in first.get("ctx", {}).items()}
    told = text(key, language, **facts)
    expected = first["msg"] if told.startswith(key) else told  # a rule without a sentence of ours
    return YardError("invalid_request", reason=f"{where}: {expected}"[:500])


def _listed(fact: object, language: str) -> object:
    """pydantic joins what is possible with an English word."""
    return fact.replace(" or ", text("invalid.or", language)) if isinstance(fact, str) else fact


def language_of(connection: HTTPConnection) -> str:
    """The language that the caller reads."""
    return language_of_header(connection.headers.get("accept-language"))


def _answer(connection: HTTPConnection, error: YardError) -> Response:
    # Not `connection.url`: that reads the Host header, which may be anything.
    return problem_response(error, language_of(connection), connection.scope["path"])
