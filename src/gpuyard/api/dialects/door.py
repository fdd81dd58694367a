"""The door at `/`: an EC2 or ECS request is taken in whole, its signature checked, and answered in its dialect.

It stands before the rest of the application: what is refused here is refused in the dialect's own words.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import uuid
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gpuyard.access.questions import Origin
from gpuyard.access.rate_limits import ActionClass
from gpuyard.access.signatures.checking import check
from gpuyard.access.signatures.nonces import Nonces
from gpuyard.access.signatures.request import Refusal, SignatureError, SignedRequest, decode_pairs
from gpuyard.api.asking import Asking, origin_of, too_many
from gpuyard.api.dialects.call import Call, Dialect
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.remembering import Answers
from gpuyard.control.access_keys import USED_EVERY_US, StoredKeys
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 256 << 10
MAX_PARAMETERS: Final = 2000
_TEMPORARY: Final = frozenset({"x-amz-security-token", "x-acs-security-token", "securitytoken"})
FORM: Final = "application/x-www-form-urlencoded"


class Door:
    """Around the whole application; passes on what is no dialect's."""

    def __init__(self, app: ASGIApp, yard: Yard) -> None:
        self.app = app
        self._yard = yard
        self._keys = StoredKeys(yard)
        self._nonces = Nonces()
        self._used: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or not _is_ours(scope):
            await self.app(scope, receive, send)
            return
        request_id = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        headers = _headers(scope)
        request = SignedRequest(scope["method"], "/", [], headers, b"")
        dialect: Dialect | None = None
        try:
            try:
                # Read before the body is: what it says decides in whose words an oversized one is refused.
                request = _with_query(request, scope["query_string"])
            finally:
                dialect = _dialect(request)
            request = await _with_body(request, receive)
            dialect = _dialect(request)
            origin = origin_of(self._yard, HTTPConnection(scope))
            response = await self._answer(dialect, request, request_id, origin)
        except (Fault, YardError, SignatureError) as error:
            response = (dialect or _dialect(request)).refuse(error, request, request_id)
        except _CallerLeftError:
            return
        except Exception as error:
            log.exception("dialect_failed", exc_info=error, extra={"request_id": request_id})
            told = YardError("internal", reference=request_id)
            response = (dialect or _dialect(request)).refuse(told, request, request_id)
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)

    async def _answer(self, dialect: Dialect, request: SignedRequest, request_id: str, origin: Origin) -> Response:
        now_us = self._yard.clock.now_us()
        across = self._yard.store.dialect != "sqlite"
        proof = (request, self._keys, self._nonces, now_us)
        known, claim = await asyncio.to_thread(check, *proof) if across else check(*proof)
        pairs = [*request.query, *request.form]
        if any(request.headers.get(name) for name in _TEMPORARY) or any(
            value and name.lower() in _TEMPORARY for name, value in pairs
        ):
            raise SignatureError(Refusal.UNKNOWN_KEY)  # this yard gives no temporary keys
        if any("\0" in text or not _is_unicode(text) for pair in pairs for text in pair):
            raise SignatureError(Refusal.MALFORMED, "the parameters are not UTF-8, or hold a NUL")
        caller = Asking(self._yard, known.identity, "en", Answers(), origin)
        call = Call(dialect.action(request), pairs, claim, request_id, _invocation(request))
        of = dialect.classify(call.action)
        if wait_us := self._yard.rates.admit(claim.key_id, of, time.monotonic_ns() // 1000):
            raise too_many(of, wait_us)
        door = caller.read if of is ActionClass.READ else caller.write
        response = await door(lambda: dialect.answer(caller, call))
        if now_us - self._used.get(claim.key_id, 0) > USED_EVERY_US:
            self._used[claim.key_id] = now_us
            await asyncio.to_thread(self._note_use, claim.key_id, now_us)
        return response

    def _note_use(self, key_id: str, now_us: int) -> None:
        """What was done is done: that its key's use could not be written down must not make it a failure."""
        try:
            self._keys.used(key_id, now_us)
        except YardError as error:
            log.warning("key_use_not_noted", extra={"key": key_id, "code": error.code})


class _CallerLeftError(Exception):
    """The caller went away before the end of its request."""


def _invocation(request: SignedRequest) -> str | None:
    """What AWS's SDKs name a call by when they send it once more."""
    told = request.headers.get("amz-sdk-invocation-id", "")
    return told if 0 < len(told) <= 64 and told.isascii() and told.isprintable() else None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_ours(scope: Scope) -> bool:
    """A request to `/` that is posted, or that asks for an action. Others are for whoever shows a page there."""
    return scope["method"] == "POST" or (
        scope["method"] == "GET"
        and (
            b"Action=" in scope["query_string"]
            or b"X-Amz-" in scope["query_string"]
            or any(name in (b"x-acs-action", b"x-amz-date") for name, _ in scope["headers"])
        )
    )


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _with_query(request: SignedRequest, query: bytes) -> SignedRequest:
    return SignedRequest(request.method, request.path, decode_pairs(query, MAX_PARAMETERS), request.headers, b"")


async def _with_body(request: SignedRequest, receive: Receive) -> SignedRequest:
    """Raises Fault for a body that is too large."""
    parts: list[bytes] = []
    size = 0
    more = request.method == "POST"
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _CallerLeftError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise Fault("RequestEntityTooLarge", f"The request is larger than {MAX_BODY_BYTES} bytes.", 413)
        more = message.get("more_body", False)
    body = b"".join(parts)
    is_form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
    form = decode_pairs(body, MAX_PARAMETERS) if is_form else []
    return SignedRequest(request.method, request.path, request.query, request.headers, body, form)


def _dialect(request: SignedRequest) -> Dialect:
    """Which cloud's words these are. Imported when they are first spoken: most yards hear one, or none."""
    headers = request.headers
    if "x-acs-action" in headers or headers.get("authorization", "").startswith("ACS3-"):
        from gpuyard.api.ecs.dialect import Ecs

        return Ecs()
    names = {name for name, _ in (*request.query, *request.form)}
    if names & {"SignatureNonce", "SignatureMethod", "AccessKeyId"} and "X-Amz-Algorithm" not in names:
        from gpuyard.api.ecs.dialect import Ecs

        return Ecs()
    from gpuyard.api.ec2.dialect import Ec2

    return Ec2()
