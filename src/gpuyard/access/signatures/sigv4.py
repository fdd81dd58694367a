"""AWS Signature Version 4, in the Authorization header and in the query.

The scheme: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Final

from gpuyard.access.signatures.request import (
    MINUTE_US,
    Claim,
    Refusal,
    SignatureError,
    SignedRequest,
    canonical,
    encode,
    fields,
    headers_to_sign,
    moment_us,
    sha256,
)

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_US: Final = 15 * MINUTE_US
LONGEST_S: Final = 604_800  # of a presigned query
_LAYOUT: Final = "%Y%m%dT%H%M%SZ"


def is_signed(request: SignedRequest) -> bool:
    """Whether the request claims this scheme."""
    if request.headers.get("authorization", "").startswith(ALGORITHM):
        return True
    return any(name == "X-Amz-Algorithm" for name, _ in request.query)


def read(request: SignedRequest, now_us: int) -> Claim:
    """What the request claims.

    Raises SignatureError `malformed` or `expired`.
    """
    authorization = request.headers.get("authorization")
    if authorization is None:
        return _of_query(request, now_us)
    found = fields(authorization.removeprefix(ALGORITHM))
    date = request.headers.get("x-amz-date", "")
    claim = _claim(request, found, date, "Signature", request.query)
    if abs(now_us - claim.signed_us) > SKEW_US:
        raise SignatureError(Refusal.EXPIRED, f"Signature expired or not yet valid: it was made at {date}")
    return claim


def _of_query(request: SignedRequest, now_us: int) -> Claim:
    given = dict(request.query)
    if given.get("X-Amz-Algorithm") != ALGORITHM or len(given) != len(request.query):
        raise SignatureError(Refusal.MALFORMED, f"X-Amz-Algorithm is not {ALGORITHM}, or a parameter is given twice")
    found = {name.removeprefix("X-Amz-"): value for name, value in given.items() if name.startswith("X-Amz-")}
    expires = found.get("Expires", "")
    if not expires.isascii() or not expires.isdecimal() or len(expires) > 6 or not 0 < int(expires) <= LONGEST_S:
        raise SignatureError(Refusal.MALFORMED, f"X-Amz-Expires is not a number of seconds up to {LONGEST_S}")
    rest = [(name, value) for name, value in request.query if name != "X-Amz-Signature"]
    claim = _claim(request, found, found.get("Date", ""), "Signature", rest)
    if not -SKEW_US <= now_us - claim.signed_us <= int(expires) * 1_000_000:
        raise SignatureError(Refusal.EXPIRED, "Request has expired")
    return claim


def _claim(
    request: SignedRequest, found: dict[str, str], date: str, name: str, query: list[tuple[str, str]] | object
) -> Claim:
    if not {"Credential", "SignedHeaders", name} <= found.keys():
        raise SignatureError(Refusal.MALFORMED, "Credential, SignedHeaders and Signature must be given")
    scope = found["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request" or scope[1] != date[:8]:
        raise SignatureError(Refusal.MALFORMED, "Credential is not KEY/DATE/REGION/SERVICE/aws4_request of that date")
    must = ("host", "x-amz-date") if "authorization" in request.headers else ("host",)
    signed = found["SignedHeaders"]
    lines = headers_to_sign(request, signed, must, "x-amz-")
    to_sign_of = [request.method, _path(request.path), canonical(query), lines, signed, sha256(request.body)]  # type: ignore[arg-type]
    text = "\n".join([ALGORITHM, date, "/".join(scope[1:]), sha256("\n".join(to_sign_of).encode())])
    return Claim(
        key_id=scope[0],
        signature=found[name],
        signed_us=moment_us(date, _LAYOUT),
        nonce=None,
        region=scope[2],
        to_sign=text,
        keyed=tuple(scope[1:]),
        scheme=ALGORITHM,
    )


def _path(path: str) -> str:
    return "/".join(map(encode, path.split("/"))) or "/"


@lru_cache(maxsize=1024)
def _key(secret: str, date: str, region: str, service: str, end: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, end):
        key = hmac.digest(key, part.encode(errors="replace"), "sha256")
    return key


def sign(claim: Claim, secret: str) -> str:
    """The signature that this secret gives."""
    date, region, service, end = claim.keyed
    return hmac.digest(_key(secret, date, region, service, end), claim.to_sign.encode(), "sha256").hex()
