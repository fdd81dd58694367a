"""What every request passes first, as plain ASGI because it is paid for on each of them: what no handler should meet is
refused, bodies are held to a size, and every answer says that it is to be taken as what it is and not to be kept."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuyard.api.problems import problem_response
from gpuyard.model.errors import YardError
from gpuyard.texts import language_of_header

MAX_BODY_BYTES = 1 << 20  # of JSON; files stream to disk and have their own room
_WITH_JSON = frozenset({"POST", "PATCH"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Around the whole application, so that the answers to its own failures pass it too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
            return
        if kind == "http":
            send = _with_headers(send)
        try:
            # No name, path or token holds one, and PostgreSQL takes none in a text.
            if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
                raise YardError("invalid_request", reason="nul")
            if kind == "http" and scope["method"] in _WITH_JSON:
                body = await _read(scope, receive)
                if body is None:
                    return  # the caller went away
                receive = _again(body, receive)
        except YardError as error:
            language = language_of_header(Headers(scope=scope).get("accept-language"))
            await problem_response(error, language, scope["path"])(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return told


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """The body, or None where the caller went away before its end.

    Raises YardError `request_too_large` as soon as that is known, mostly before anything was read.
    """
    declared = Headers(scope=scope).get("content-length", "0")
    if declared.isdecimal() and (len(declared) > 12 or int(declared) > MAX_BODY_BYTES):
        raise YardError("request_too_large", maximum=MAX_BODY_BYTES)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise YardError("request_too_large", maximum=MAX_BODY_BYTES)
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` as it was before the body was read."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
